// What Python hands over, with the memory that it points to kept alive.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "coinfer/combine/rule.hpp"
#include "coinfer/outputs.hpp"
#include "coinfer/plan/plan.hpp"

namespace coinfer::python {

/// coinfer._core.plan.Outputs: one model's answers.
struct Held {
  Outputs outputs;
  std::vector<pybind11::object> arrays;
};

/// coinfer._core.rule.Stop: a stop rule, with the memory that its state points to.
struct HeldStop {
  Rule rule;
  std::shared_ptr<void> state;
};

}  // namespace coinfer::python
