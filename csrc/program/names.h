// Owns the rule for names: what a rule, its states and its hyperparameters, and the values of a rule's text may be
// called. The verifier asks here, and so does the rule language, so that what one accepts the other accepts too.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nos {

enum class NameOf : uint8_t { rule, state, hyperparameter, value };

// Says what is wrong with a name, as the end of a sentence that begins with the name. It is empty if nothing is wrong.
std::string name_problem(NameOf of, std::string_view name);

// Names that are taken. Python's grammar takes the first for everything, the rule language the second for everything
// but rules, and the arguments of apply_rule and apply_population the third for hyperparameters.
std::span<const std::string_view> python_names();
std::span<const std::string_view> language_names();
std::span<const std::string_view> argument_names();

// Puts a name of unknown origin between quotes. Bytes that are not printable ASCII are shown as \x..
std::string quoted(std::string_view name);

}  // namespace nos
