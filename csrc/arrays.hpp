// Arrays across the border: checked once here, spans inside.
#pragma once

#include <pybind11/numpy.h>

#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace coinfer::python {

namespace py = pybind11;

/// View a C-contiguous array of exactly T; anything else is a TypeError that names the argument.
template <class T>
std::span<const T> view(const py::object& object, const char* what) {
  if (!py::isinstance<py::array_t<T>>(object)) {
    throw py::type_error(std::string(what) + " must be an array of " + std::string(py::str(py::dtype::of<T>())));
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  if ((array.flags() & py::array::c_style) == 0) throw py::type_error(std::string(what) + " must be C-contiguous");
  return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

/// Hand a vector to NumPy without a copy.
template <class T>
py::array_t<T> give(std::vector<T>&& values, std::vector<py::ssize_t> shape = {}) {
  auto* kept = new std::vector<T>(std::move(values));
  const py::capsule owner(kept, [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
  if (shape.empty()) shape = {static_cast<py::ssize_t>(kept->size())};
  return py::array_t<T>(shape, kept->data(), owner);
}

/// A read-only view of memory that `owner` keeps alive.
template <class T>
py::array_t<T> lend(const T* data, std::vector<py::ssize_t> shape, const py::object& owner) {
  py::array_t<T> array(std::move(shape), data, owner);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

}  // namespace coinfer::python
