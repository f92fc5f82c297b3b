#include "register.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled engine of coinfer.";
  module.attr("__version__") = COINFER_VERSION;
  coinfer::python::register_cpu(module);
  coinfer::python::register_score(module);
}
