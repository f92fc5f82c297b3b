#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "coinfer/combine/combiner.hpp"
#include "coinfer/combine/stack.hpp"
#include "held.hpp"
#include "register.hpp"

namespace coinfer::python {
namespace {

/// An array for results: the one that is given, or a new one.
template <class T>
py::array_t<T> result(const py::object& given, const std::vector<py::ssize_t>& shape) {
  if (given.is_none()) return py::array_t<T>(shape);
  view<T>(given, "out");  // checks type and layout
  auto array = py::reinterpret_borrow<py::array_t<T>>(given);
  if (!array.writeable() || !std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim())) {
    throw py::type_error("out must be writeable arrays with an entry per row");
  }
  return array;
}

py::tuple combine_all(const std::vector<const Held*>& outputs, const std::vector<double>& weights,
                      const std::vector<float>& temperatures, const Combiner& combiner, bool probs, unsigned threads,
                      const py::tuple& into) {
  if (outputs.empty() || weights.size() != outputs.size() || temperatures.size() != outputs.size()) {
    throw py::value_error("combine needs members, and a weight and a temperature for each");
  }
  std::vector<Member> members(outputs.size());
  std::vector<Outputs> all;
  for (std::size_t m = 0; m < outputs.size(); ++m) {
    if (outputs[m] == nullptr) throw py::type_error("a member of combine is None");
    all.push_back(outputs[m]->outputs);
    members[m].place = static_cast<std::uint32_t>(m);
    members[m].weight = weights[m];
    members[m].temperature = temperatures[m];
  }
  const auto rows = static_cast<py::ssize_t>(all[0].rows);
  if (into.size() != 4) throw py::value_error("out is a label, two scores and probabilities, each an array or None");
  auto label = result<Label>(into[0], {rows});
  auto max_prob = result<float>(into[1], {rows}), margin = result<float>(into[2], {rows});
  Combined out{label.mutable_data(), max_prob.mutable_data(), margin.mutable_data(), nullptr};
  py::object table = py::none();
  if (probs) {
    auto made = result<float>(into[3], {rows, static_cast<py::ssize_t>(combiner.classes())});
    out.probs = made.mutable_data();
    table = std::move(made);
  }
  std::size_t unanswered = 0;
  {
    const py::gil_scoped_release release;
    unanswered = combine(combiner, members, all, out, threads);
  }
  return py::make_tuple(label, max_prob, margin, table, unanswered);
}

/// Per set of members that answered: which (a bit each, by place), coefficients [class][member][class], intercepts.
using StackRow = std::tuple<std::uint64_t, py::array, py::array>;

std::shared_ptr<Combiner> make_stack(const std::vector<StackRow>& models, std::size_t members, std::size_t classes,
                                     bool logs, double floor, const std::string& score) {
  std::vector<Stack::Model> fitted;
  for (const auto& [there, coefficient, intercept] : models) {
    const auto values = view<double>(coefficient, "coefficient");
    const auto constant = view<double>(intercept, "intercept");
    fitted.push_back({there, {values.begin(), values.end()}, {constant.begin(), constant.end()}});
  }
  return std::make_shared<Stack>(std::move(fitted), members, classes, logs, floor,
                                 score == "margin" ? Kind::margin : Kind::max_prob);
}

}  // namespace

void register_combine(py::module_& module) {
  py::module_ submodule = module.def_submodule("combine", "Combined answers of several models, all at once.");
  submodule.def("combine", &combine_all, py::arg("outputs"), py::arg("weights"), py::arg("temperatures"),
                py::arg("combiner"), py::arg("probs"), py::arg("threads") = 1,
                py::arg("out") = py::make_tuple(py::none(), py::none(), py::none(), py::none()));
  submodule.def("stack", &make_stack, py::arg("models"), py::arg("members"), py::arg("classes"), py::arg("logs"),
                py::arg("floor"), py::arg("score") = "max_prob");
}

}  // namespace coinfer::python
