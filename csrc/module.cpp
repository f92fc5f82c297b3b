#include "register.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled engine of coinfer.";
  module.attr("__version__") = COINFER_VERSION;
  coinfer::python::register_cpu(module);
  coinfer::python::register_score(module);
  coinfer::python::register_plan(module);
  coinfer::python::register_sequential(module);
  coinfer::python::register_rule(module);
  coinfer::python::register_combine(module);
  coinfer::python::register_sweep(module);
  coinfer::python::register_drawing(module);
  coinfer::python::register_sim(module);
}
