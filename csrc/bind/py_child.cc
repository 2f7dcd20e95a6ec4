// Child: a network that trains by own kernels. python/nos_search/train is its public face and owns names and defaults.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cmath>
#include <optional>

#include "../child/peak.h"
#include "../child/training.h"
#include "bind.h"
#include "instances.h"

namespace py = pybind11;

namespace nos::bind {
namespace {

using Numbers = py::array_t<float, py::array::c_style>;
using Integers = py::array_t<int32_t, py::array::c_style>;
using Order = py::array_t<int64_t, py::array::c_style>;

child::Input read_input(const std::string& kind, const std::vector<int>& sizes) {
  child::Input out;
  if (kind == "image" && sizes.size() == 3) {
    out.channels = sizes[0];
    out.height = sizes[1];
    out.width = sizes[2];
  } else if (kind == "tokens" && sizes.size() == 2) {
    out.tokens = sizes[0];
    out.vocabulary = sizes[1];
  } else {
    throw std::invalid_argument(
        "input is ('" + kind + "', " + std::to_string(sizes.size()) +
        " sizes); pass ('image', (channels, height, width)) or ('tokens', (length, vocabulary))");
  }
  return out;
}

std::vector<child::LayerSpec> read_layers(const std::vector<std::pair<std::string, int>>& layers) {
  std::vector<child::LayerSpec> out;
  const auto table = child::layer_table();
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& [name, number] = layers[i];
    const auto found = std::ranges::find(table, name, &child::LayerInfo::name);
    const std::string where = "layers[" + std::to_string(i) + "]";
    if (found == table.end()) throw std::invalid_argument(where + " is '" + name + "', which is no layer");
    if (!found->number.empty() && number < 1)
      throw std::invalid_argument(where + ": " + std::string(found->number) + " is " + std::to_string(number) +
                                  "; pass 1 or more");
    out.push_back({static_cast<child::LayerSpec::Kind>(found - table.begin()), number});
  }
  return out;
}

// Holds a child for one call. A call may release the GIL, and then another thread must not touch what it works on.
class Hold {
 public:
  explicit Hold(std::atomic<bool>& held) : held_(held) {
    if (held_.exchange(true)) throw std::runtime_error("another thread is using this Child; give each thread its own");
  }
  ~Hold() { held_ = false; }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  std::atomic<bool>& held_;
};

class PyChild {
 public:
  PyChild(const std::vector<std::pair<std::string, int>>& layers, const std::string& kind,
          const std::vector<int>& sizes, int batch)
      : input_(read_input(kind, sizes)), child_(input_, read_layers(layers), batch) {}

  void set_weights(const std::vector<Numbers>& arrays) {
    const Hold hold(held_);
    if (arrays.size() != child_.shapes().size())
      throw std::invalid_argument("weights has " + std::to_string(arrays.size()) + " arrays; the network has " +
                                  std::to_string(child_.shapes().size()));
    for (size_t i = 0; i < arrays.size(); ++i) {
      const std::vector<int64_t> shape(arrays[i].shape(), arrays[i].shape() + arrays[i].ndim());
      if (shape != child_.shapes()[i])
        throw std::invalid_argument("weights[" + std::to_string(i) + "] has another shape");
    }
    for (size_t i = 0; i < arrays.size(); ++i)
      std::copy_n(arrays[i].data(), arrays[i].size(), child_.weights()[i].value);
  }
  py::list weights() const {
    return arrays([](const child::Weight& w) { return w.value; });
  }
  py::list gradients() const {
    return arrays([](const child::Weight& w) { return w.gradient; });
  }
  void set_running(const std::vector<Numbers>& arrays) {
    const Hold hold(held_);
    if (arrays.size() != child_.running_sizes().size())
      throw std::invalid_argument("running has " + std::to_string(arrays.size()) + " arrays; the network has " +
                                  std::to_string(child_.running_sizes().size()));
    for (size_t i = 0; i < arrays.size(); ++i)
      if (arrays[i].size() != child_.running_sizes()[i])
        throw std::invalid_argument("running[" + std::to_string(i) + "] has another size");
    for (size_t i = 0; i < arrays.size(); ++i) std::copy_n(arrays[i].data(), arrays[i].size(), child_.running()[i]);
  }
  py::list running() const {
    const Hold hold(held_);
    py::list out;
    for (size_t i = 0; i < child_.running_sizes().size(); ++i)
      out.append(Numbers(child_.running_sizes()[i], child_.running()[i]));
    return out;
  }

  void begin(py::object program, double lr, std::optional<double> total_steps, uint64_t seed) {
    const Hold hold(held_);
    const auto& p = program.cast<const Program&>();
    if (p.uses_total_steps() && !total_steps)
      throw std::invalid_argument("total_steps is None; rule '" + p.name() + "' reads T");
    std::vector<double> hypers;
    for (const Hyper& h : p.hypers()) {
      if (!h.has_default && h.name != "lr")
        throw std::invalid_argument("rule '" + p.name() + "' has no default for '" + h.name + "'");
      hypers.push_back(h.name == "lr" ? lr : h.value);
    }
    training_.emplace(child_, p, std::move(hypers), total_steps.value_or(NAN), seed);
    program_ = std::move(program);
  }

  // Sizes and types. What the examples hold is checked where it is known which of them are read.
  child::Examples read(const py::array& x, const Integers& y) const {
    child::Examples out;
    const int targets = child_.targets();
    out.count = y.size() / targets;
    if (y.size() % targets)
      throw std::invalid_argument("y has " + std::to_string(y.size()) + " classes; an example needs " +
                                  std::to_string(targets));
    const bool image = input_.tokens == 0;
    const int64_t per_example = image ? int64_t{1} * input_.channels * input_.height * input_.width : input_.tokens;
    if (x.size() != out.count * per_example)
      throw std::invalid_argument("x has " + std::to_string(x.size()) + " numbers; " + std::to_string(out.count) +
                                  " examples need " + std::to_string(out.count * per_example));
    if (image) {
      if (!py::isinstance<Numbers>(x)) throw py::type_error("x is not a contiguous float32 array");
      out.images = static_cast<const float*>(x.data());
    } else {
      if (!py::isinstance<Integers>(x)) throw py::type_error("x is not a contiguous int32 array");
      out.tokens = static_cast<const int32_t*>(x.data());
    }
    out.classes = y.data();
    return out;
  }
  void check_example(const child::Examples& data, int64_t example) const {
    for (int64_t i = example * input_.tokens; i < (example + 1) * input_.tokens; ++i)
      if (data.tokens[i] < 0 || data.tokens[i] >= input_.vocabulary)
        throw std::invalid_argument("x[" + std::to_string(i) + "] is " + std::to_string(data.tokens[i]) +
                                    "; tokens are below " + std::to_string(input_.vocabulary));
    for (int64_t i = example * child_.targets(); i < (example + 1) * child_.targets(); ++i)
      if (data.classes[i] >= child_.classes())
        throw std::invalid_argument("y[" + std::to_string(i) + "] is " + std::to_string(data.classes[i]) +
                                    "; classes are below " + std::to_string(child_.classes()));
  }
  // Only what will be read is looked at: a stretch of training is short beside all examples of a large task.
  void check_order(const Order& order, const child::Examples& data) const {
    for (int64_t i = 0; i < order.size(); ++i) {
      const int64_t example = order.data()[i];
      if (example < 0 || example >= data.count)
        throw std::invalid_argument("order[" + std::to_string(i) + "] is " + std::to_string(example) + "; there are " +
                                    std::to_string(data.count) + " examples");
      check_example(data, example);
    }
  }

  py::tuple run(const py::array& x, const Integers& y, const Order& order, double limit,
                const std::vector<double>& rates) {
    const Hold hold(held_);
    if (!training_) throw std::logic_error("call begin() first");
    const int64_t steps = order.size() / child_.batch();
    if (order.size() % child_.batch())
      throw std::invalid_argument("order has " + std::to_string(order.size()) + " examples; pass a multiple of " +
                                  std::to_string(child_.batch()) + ", the batch");
    if (!rates.empty() && static_cast<int64_t>(rates.size()) != steps)
      throw std::invalid_argument("rates has " + std::to_string(rates.size()) + " learning rates; order has " +
                                  std::to_string(steps) + " batches");
    const child::Examples data = read(x, y);
    check_order(order, data);
    child::Training::Progress progress;
    {
      const py::gil_scoped_release release;
      progress = training_->run(data, {order.data(), static_cast<size_t>(order.size())}, rates, limit);
    }
    return py::make_tuple(progress.steps, progress.loss, progress.alive);
  }
  py::tuple evaluate(const py::array& x, const Integers& y) {
    const Hold hold(held_);
    const child::Examples data = read(x, y);
    for (int64_t i = 0; i < data.count; ++i) check_example(data, i);
    child::Loss loss;
    {
      const py::gil_scoped_release release;
      loss = child_.evaluate(data, 0, data.count);
    }
    return py::make_tuple(loss.sum, loss.right, loss.counted);
  }
  double loss(const py::array& x, const Integers& y, const Order& index, float momentum) {
    const Hold hold(held_);
    const child::Examples data = read(x, y);
    check_order(index, data);
    if (index.size() < 1 || index.size() > child_.batch()) throw std::invalid_argument("index: 1 to batch examples");
    const child::Loss out = child_.gradients(data, {index.data(), static_cast<size_t>(index.size())}, momentum);
    return out.sum / static_cast<double>(std::max<int64_t>(out.counted, 1));
  }
  size_t memory() const {
    const Hold hold(held_);
    return child_.memory() + (training_ ? training_->memory() : 0);
  }
  double multiply_adds() const { return child_.multiply_adds(); }
  const std::vector<std::vector<int64_t>>& shapes() const { return child_.shapes(); }

 private:
  template <class Get>
  py::list arrays(const Get& get) const {
    const Hold hold(held_);
    py::list out;
    for (size_t i = 0; i < child_.shapes().size(); ++i)
      out.append(Numbers(child_.shapes()[i], get(child_.weights()[i])));
    return out;
  }

  const child::Input input_;
  child::Child child_;
  std::optional<child::Training> training_;
  py::object program_;
  mutable std::atomic<bool> held_ = false;
};

}  // namespace

void bind_child(py::module_& m) {
  py::class_<PyChild> type(
      m, "Child", py::custom_type_setup(checked_new),
      "A network trained by own kernels. layers: (name, number) of layer_table(); input: 'image' with "
      "(channels, height, width) or 'tokens' with (length, vocabulary); batch: examples of a step.");
  def_init<const std::vector<std::pair<std::string, int>>&, const std::string&, const std::vector<int>&, int>(
      type, [](auto&&... args) { return std::make_unique<PyChild>(std::forward<decltype(args)>(args)...); },
      py::arg("layers"), py::arg("kind"), py::arg("sizes"), py::arg("batch"));
  type.def_property_readonly("shapes", &PyChild::shapes)
      .def_property_readonly("memory", &PyChild::memory)
      .def_property_readonly("multiply_adds", &PyChild::multiply_adds)
      .def("set_weights", &PyChild::set_weights, py::arg("weights"))
      .def("weights", &PyChild::weights)
      .def("gradients", &PyChild::gradients)
      .def("set_running", &PyChild::set_running, py::arg("running"))
      .def("running", &PyChild::running)
      .def("begin", &PyChild::begin, py::arg("program"), py::arg("lr"), py::arg("total_steps"), py::arg("seed"))
      .def("run", &PyChild::run, py::arg("x"), py::arg("y"), py::arg("order"), py::arg("limit"),
           py::arg("rates") = std::vector<double>())
      .def("evaluate", &PyChild::evaluate, py::arg("x"), py::arg("y"))
      .def("loss", &PyChild::loss, py::arg("x"), py::arg("y"), py::arg("index"), py::arg("momentum") = 1.0f);
  m.def(
      "child_kernels",
      []() -> std::optional<std::string> {
        const child::Kernels* found = child::kernels();
        return found ? std::optional<std::string>(found->name) : std::nullopt;
      },
      "The instruction set of the kernels of children, or None where this machine has none.");
  m.def("peak_gflops", &child::peak_gflops, py::arg("seconds"), py::call_guard<py::gil_scoped_release>(),
        "What one core does at most with these kernels' instructions: 1e9 operations per second of independent fused "
        "multiply-adds, measured for so many seconds; 0 without kernels.");
  m.def(
      "layer_table",
      [] {
        py::list out;
        for (const child::LayerInfo& l : child::layer_table()) {
          py::dict row;
          row["name"] = l.name;
          row["number"] = l.number;
          row["doc"] = l.doc;
          out.append(row);
        }
        return out;
      },
      "What a child can be made of: a name, what its number is, and what it computes.");
}

}  // namespace nos::bind
