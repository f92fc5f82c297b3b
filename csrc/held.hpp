// coinfer._core.plan.Outputs: one model's answers, with the arrays that hold them kept alive.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "coinfer/outputs.hpp"

namespace coinfer::python {

struct Held {
  Outputs outputs;
  std::vector<pybind11::object> arrays;
};

}  // namespace coinfer::python
