// The topics of coinfer._core. Each register_<topic>.cpp adds one submodule and does three things only: check shapes
// and dtypes, release the GIL, call the engine.
#pragma once

#include <pybind11/pybind11.h>

namespace coinfer::python {

void register_cpu(pybind11::module_& module);
void register_score(pybind11::module_& module);
void register_combine(pybind11::module_& module);
void register_plan(pybind11::module_& module);
void register_sequential(pybind11::module_& module);
void register_rule(pybind11::module_& module);
void register_drawing(pybind11::module_& module);
void register_sim(pybind11::module_& module);
void register_sweep(pybind11::module_& module);

}  // namespace coinfer::python
