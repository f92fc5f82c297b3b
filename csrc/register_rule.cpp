#include <pybind11/stl.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "coinfer/combine/rule.hpp"
#include "coinfer/plan/route.hpp"
#include "held.hpp"
#include "register.hpp"

namespace coinfer::python {
namespace {

/// A function compiled by Numba, whose signature python/coinfer/rule.py has checked.
template <class Function>
Function at(std::uintptr_t address, const char* what) {
  if (address == 0) throw py::value_error(std::string(what) + " must be the address of a function");
  return reinterpret_cast<Function>(address);  // NOLINT(performance-no-int-to-ptr): Numba gives addresses as integers
}

HeldStop make_stop(std::uintptr_t advance, std::uintptr_t block, const py::bytes& state, bool jumps, bool opens,
                   bool per_request) {
  HeldStop held;
  held.rule.advance = at<decltype(Rule::advance)>(advance, "advance");
  if (block != 0) held.rule.block = at<decltype(Rule::block)>(block, "block");
  held.rule.jumps = jumps;
  held.rule.opens = opens;
  held.rule.per_request = per_request;
  const std::string bytes = state;
  if (!bytes.empty()) {
    // As aligned as any member of a record can ask for.
    const std::size_t words = (bytes.size() + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t);
    const std::shared_ptr<std::max_align_t[]> memory(new std::max_align_t[words]);
    std::memcpy(memory.get(), bytes.data(), bytes.size());
    held.state = memory;
    held.rule.state = memory.get();
  }
  return held;
}

HeldStop make_route(std::vector<float> cut, std::vector<std::int32_t> steps) {
  if (cut.empty() || cut.size() != steps.size()) throw py::value_error("a route needs one step for each cut");
  for (const float value : cut) {
    if (std::isnan(value)) throw py::value_error("a cut must be a number, not NaN");
  }
  for (const std::int32_t step : steps) {
    if (step < 1) throw py::value_error("a route goes at least one stage ahead");
  }
  HeldStop held;
  const auto route = std::make_shared<Route>();
  route->cut = std::move(cut);
  route->steps = std::move(steps);
  held.state = route;
  held.rule.state = route.get();
  held.rule.advance = &follow;
  held.rule.jumps = true;
  return held;
}

Kind kind_of(const std::string& name) {
  if (name == "max_prob") return Kind::max_prob;
  if (name == "margin") return Kind::margin;
  if (name == "entropy") return Kind::entropy;
  if (name == "gini") return Kind::gini;
  throw py::value_error("a combination is scored by max_prob, margin, entropy or gini, not '" + name + "'");
}

}  // namespace

void register_rule(py::module_& module) {
  py::module_ rule = module.def_submodule("rule", "Rules of one's own, called by address.");

  py::class_<HeldStop>(rule, "Stop")
      .def(py::init(&make_stop), py::arg("advance"), py::arg("block"), py::arg("state"), py::arg("jumps"),
           py::arg("opens"), py::arg("per_request"))
      .def_property_readonly("per_request", [](const HeldStop& self) { return self.rule.per_request; });
  rule.def("route", &make_route, py::arg("cut"), py::arg("steps"));

  py::class_<ScoreRule, std::shared_ptr<ScoreRule>>(rule, "Score")
      .def(py::init([](std::uintptr_t block, bool logits) {
             auto made = std::make_shared<ScoreRule>();
             made->block = at<decltype(ScoreRule::block)>(block, "block");
             made->logits = logits;
             return made;
           }),
           py::arg("block"), py::arg("logits"));

  rule.def(
      "score",
      [](const ScoreRule& self, const Held& held, float temperature, unsigned threads) {
        const auto rows = static_cast<py::ssize_t>(held.outputs.rows);
        py::array_t<float> scores(rows);
        std::vector<Label> labels(held.outputs.rows);
        float* out = scores.mutable_data();
        {
          const py::gil_scoped_release release;
          score(self, held.outputs, temperature, labels.data(), out, threads);
        }
        return scores;
      },
      py::arg("rule"), py::arg("outputs"), py::arg("temperature") = 1.0F, py::arg("threads") = 1);

  rule.def(
      "combiner",
      [](std::uintptr_t block, std::uintptr_t all_block, std::size_t members, std::size_t classes,
         const std::string& score) -> std::shared_ptr<Combiner> {
        return std::make_shared<RuleCombiner>(at<CombineBlock>(block, "block"),
                                              at<CombineBlock>(all_block, "all_block"), members, classes,
                                              kind_of(score));
      },
      py::arg("block"), py::arg("all_block"), py::arg("members"), py::arg("classes"), py::arg("score") = "max_prob");
}

}  // namespace coinfer::python
