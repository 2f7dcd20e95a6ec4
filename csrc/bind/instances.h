// Owns how Python objects of our classes are made. pybind11's own way ends the process when memory runs out: its tp_new
// uses the result of tp_alloc without checking it, and it makes the holder of a new object outside of its try block.
// Here both become errors that Python sees.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

namespace nos::bind {

// For py::custom_type_setup. Sets a tp_new that raises MemoryError when memory runs out.
inline void checked_new(PyHeapTypeObject* heap_type) {
  heap_type->ht_type.tp_new = [](PyTypeObject* type, PyObject*, PyObject*) -> PyObject* {
    namespace detail = pybind11::detail;
    try {
      detail::all_type_info(type);  // allocates what the first object of a type needs besides itself
    } catch (...) {
      detail::get_internals().registered_types_py.erase(type);  // it was only half made
      detail::try_translate_exceptions();
      return nullptr;
    }
    PyObject* self = type->tp_alloc(type, 0);
    if (self) reinterpret_cast<detail::instance*>(self)->allocate_layout();
    return self;
  };
}

// Replaces .def(py::init(make), extra...). make(Args...) returns std::unique_ptr<T>.
template <class... Args, class T, class Make, class... Extra>
void def_init(pybind11::class_<T>& type, const Make& make, const Extra&... extra) {
  type.def(
      "__init__",
      [make](pybind11::detail::value_and_holder& slot, Args... args) {
        std::unique_ptr<T> made = make(std::forward<Args>(args)...);
        slot.value_ptr() = made.get();
        try {
          slot.type->init_instance(slot.inst, &made);  // takes ownership
        } catch (...) {
          slot.value_ptr() = nullptr;
          throw;
        }
      },
      pybind11::detail::is_new_style_constructor(), extra...);
}

}  // namespace nos::bind
