#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <span>

#include "coinfer/drawing/drawing.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace coinfer::python {
namespace {

/// The next so many values of a stream, in a new array.
template <class T, class Stream>
py::array_t<T> draw(Stream& stream, std::size_t rows) {
  py::array_t<T> values(static_cast<py::ssize_t>(rows));
  const std::span<T> out(values.mutable_data(), rows);
  const py::gil_scoped_release release;
  stream.draw(out);
  return values;
}

}  // namespace

void register_drawing(py::module_& module) {
  py::module_ drawing = module.def_submodule("drawing", "What generated traces are drawn from.");

  py::class_<Arrivals>(drawing, "Arrivals")
      .def(py::init<PhiloxKey, double>(), py::arg("key"), py::arg("gap_ns"))
      .def("draw", &draw<std::int64_t, Arrivals>, py::arg("rows"))
      .def_property_readonly("now_ns", &Arrivals::now_ns);

  py::class_<Integers>(drawing, "Integers")
      .def(py::init([](PhiloxKey key, std::uint32_t bound) {
             if (bound < 1 || bound > std::uint32_t{1} << 31) throw py::value_error("bound must be from 1 to 2^31");
             return Integers(key, bound);
           }),
           py::arg("key"), py::arg("bound"))
      .def("draw", &draw<std::int32_t, Integers>, py::arg("rows"));
}

}  // namespace coinfer::python
