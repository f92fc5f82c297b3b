#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "arrays.hpp"
#include "coinfer/drawing/drawing.hpp"
#include "register.hpp"

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

  py::class_<Uniforms>(drawing, "Uniforms")
      .def(py::init<PhiloxKey>(), py::arg("key"))
      .def("draw", &draw<double, Uniforms>, py::arg("rows"));

  py::class_<Integers>(drawing, "Integers")
      .def(py::init([](PhiloxKey key, std::uint32_t bound) {
             if (bound < 1 || bound > std::uint32_t{1} << 31) throw py::value_error("bound must be from 1 to 2^31");
             return Integers(key, bound);
           }),
           py::arg("key"), py::arg("bound"))
      .def("draw", &draw<std::int32_t, Integers>, py::arg("rows"));

  drawing.def(
      "pick",
      [](const py::object& ends, const py::object& numbers) {
        const auto limits = view<double>(ends, "ends");
        const auto drawn = view<double>(numbers, "numbers");
        if (limits.empty() || limits.back() != 1.0 || !std::is_sorted(limits.begin(), limits.end())) {
          throw py::value_error("ends must ascend to 1");
        }
        if (!std::all_of(drawn.begin(), drawn.end(), [](double x) { return x >= 0.0 && x < 1.0; })) {
          throw py::value_error("numbers must lie in [0, 1)");
        }
        py::array_t<std::int32_t> parts(static_cast<py::ssize_t>(drawn.size()));
        const std::span<std::int32_t> out(parts.mutable_data(), drawn.size());
        const py::gil_scoped_release release;
        pick(limits, drawn, out);
        return parts;
      },
      py::arg("ends"), py::arg("numbers"));
}

}  // namespace coinfer::python
