#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "arrays.hpp"
#include "coinfer/combine/pool.hpp"
#include "held.hpp"
#include "register.hpp"

namespace coinfer::python {
namespace {

How how_of(const std::string& name) {
  if (name == "mean") return How::mean;
  if (name == "logpool") return How::logpool;
  if (name == "vote") return How::vote;
  throw py::value_error("unknown way to combine '" + name + "'");
}

py::tuple combine_all(const std::vector<const Held*>& outputs, const std::vector<double>& weights,
                      const std::vector<float>& temperatures, const std::string& how, std::size_t classes, bool probs,
                      unsigned threads) {
  if (outputs.empty() || weights.size() != outputs.size() || temperatures.size() != outputs.size()) {
    throw py::value_error("combine needs members, and a weight and a temperature for each");
  }
  const Pool pool(how_of(how), classes);
  std::vector<Member> members(outputs.size());
  std::vector<Outputs> all;
  for (std::size_t m = 0; m < outputs.size(); ++m) {
    if (outputs[m] == nullptr) throw py::type_error("a member of combine is None");
    all.push_back(outputs[m]->outputs);
    members[m].weight = weights[m];
    members[m].temperature = temperatures[m];
  }
  const auto rows = static_cast<py::ssize_t>(all[0].rows);
  py::array_t<Label> label(rows);
  py::array_t<float> max_prob(rows), margin(rows);
  Combined out{label.mutable_data(), max_prob.mutable_data(), margin.mutable_data(), nullptr};
  py::object table = py::none();
  if (probs) {
    py::array_t<float> made({rows, static_cast<py::ssize_t>(classes)});
    out.probs = made.mutable_data();
    table = std::move(made);
  }
  std::size_t unanswered = 0;
  {
    const py::gil_scoped_release release;
    unanswered = combine(pool, members, all, out, threads);
  }
  return py::make_tuple(label, max_prob, margin, table, unanswered);
}

}  // namespace

void register_combine(py::module_& module) {
  py::module_ submodule = module.def_submodule("combine", "Combined answers of several models, all at once.");
  submodule.def("combine", &combine_all, py::arg("outputs"), py::arg("weights"), py::arg("temperatures"),
                py::arg("how"), py::arg("classes"), py::arg("probs"), py::arg("threads") = 1);
}

}  // namespace coinfer::python
