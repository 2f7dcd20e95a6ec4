#include "names.h"

#include <algorithm>
#include <stdexcept>

#include "bytecode.h"

namespace nos {
namespace {

// Keywords of Python 3.10 to 3.14, and the one other name that cannot be assigned to.
constexpr std::string_view kPython[] = {
    "False", "None",     "True",  "and",    "as",   "assert", "async",  "await",    "break",
    "class", "continue", "def",   "del",    "elif", "else",   "except", "finally",  "for",
    "from",  "global",   "if",    "import", "in",   "is",     "lambda", "nonlocal", "not",
    "or",    "pass",     "raise", "return", "try",  "while",  "with",   "yield",    "__debug__"};

constexpr std::string_view kLanguage[] = {
    "p", "g", "t", "T", "e", "pi", "inf",
#define NOS_OP(id, ...) #id,
#include "../ops/ops.def"
#undef NOS_OP
};

constexpr std::string_view kArguments[] = {
#define NOS_PLACE(id, taker) #id,
#define NOS_LR(id, doc)  // every rule has it
#define NOS_OPTION(id, initial, each, doc) #id,
#include "arguments.def"
#undef NOS_PLACE
#undef NOS_LR
#undef NOS_OPTION
};

bool is_identifier(std::string_view s) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !s.empty() && letter(s[0]) &&
         std::all_of(s.begin(), s.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string with_article(NameOf of) {
  switch (of) {
    case NameOf::rule:
      return "a rule";
    case NameOf::state:
      return "a state";
    case NameOf::hyperparameter:
      return "a hyperparameter";
    case NameOf::value:
      return "a value";
  }
  throw std::logic_error("a name of nothing");
}

}  // namespace

std::span<const std::string_view> python_names() { return kPython; }
std::span<const std::string_view> language_names() { return kLanguage; }
std::span<const std::string_view> argument_names() { return kArguments; }

std::string name_problem(NameOf of, std::string_view name) {
  const auto cannot = [&](const std::string& why, const std::string& remedy) {
    return why + "cannot name " + with_article(of) + "; " + remedy;
  };
  if (!is_identifier(name)) return cannot("", "use ASCII letters, digits and _");
  if (name.size() > bytecode::kMaxNameBytes)
    return cannot("has " + std::to_string(name.size()) + " characters and ",
                  "the limit is " + std::to_string(bytecode::kMaxNameBytes));
  if (contains(kPython, name)) return cannot("is a keyword of Python and ", "choose another name");
  if (of == NameOf::rule) return {};
  if (contains(kLanguage, name)) return cannot("belongs to the rule language and ", "choose another name");
  if (of == NameOf::hyperparameter && contains(kArguments, name))
    return cannot("is an argument of nos_ext.apply_rule or apply_population and ", "choose another name");
  return {};
}

std::string quoted(std::string_view name) {
  constexpr size_t kShown = 40;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : name.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '\'' && c != '\\')
      out += c;
    else
      out += std::string("\\x") + kHex[byte >> 4] + kHex[byte & 15];
  }
  return out + (name.size() > kShown ? "...'" : "'");
}

}  // namespace nos
