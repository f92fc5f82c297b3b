#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "arrays.hpp"
#include "coinfer/combine/pool.hpp"
#include "coinfer/plan/decide.hpp"
#include "coinfer/plan/evidence.hpp"
#include "coinfer/plan/session.hpp"
#include "held.hpp"
#include "register.hpp"

namespace coinfer::python {
namespace {

Form form_of(const std::string& name) {
  if (name == "label") return Form::label;
  if (name == "label_confidence") return Form::label_confidence;
  if (name == "probs") return Form::probs;
  if (name == "logits") return Form::logits;
  throw py::value_error("unknown form '" + name + "'");
}

ScoreKind kind_of(const std::string& name) {
  if (name == "confidence") return std::nullopt;
  if (name == "max_prob") return Kind::max_prob;
  if (name == "margin") return Kind::margin;
  if (name == "entropy") return Kind::entropy;
  if (name == "energy") return Kind::energy;
  if (name == "logit_margin") return Kind::logit_margin;
  if (name == "gini") return Kind::gini;
  throw py::value_error("unknown score '" + name + "'");
}

Held make_outputs(const std::string& form, const py::object& vector, const py::object& label,
                  const py::object& confidence, const py::object& relabel) {
  Held held;
  held.outputs.form = form_of(form);
  held.arrays = {vector, label, confidence, relabel};
  if (!vector.is_none()) {
    if (!py::isinstance<py::array_t<float>>(vector)) throw py::type_error("vector must be an array of float32");
    const auto array = py::reinterpret_borrow<py::array>(vector);
    const bool strided =
        array.ndim() == 2 && array.size() > 0 && array.shape(1) > 1;  // an empty array may have any strides
    if (array.ndim() != 2 || (strided && array.strides(1) != static_cast<py::ssize_t>(sizeof(float)))) {
      throw py::type_error("vector must be (rows, classes) with unit stride along a row");
    }
    held.outputs.rows = static_cast<std::size_t>(array.shape(0));
    held.outputs.classes = static_cast<std::size_t>(array.shape(1));
    held.outputs.vector = static_cast<const float*>(array.data());
    held.outputs.row_stride = array.strides(0) / static_cast<py::ssize_t>(sizeof(float));
  }
  if (!label.is_none()) {
    const auto labels = view<Label>(label, "label");
    held.outputs.rows = labels.size();
    held.outputs.label = labels.data();
  }
  if (!confidence.is_none()) {
    const auto values = view<float>(confidence, "confidence");
    if (values.size() != held.outputs.rows) throw py::value_error("confidence and label differ in length");
    held.outputs.confidence = values.data();
  }
  if (!relabel.is_none()) {
    const auto map = view<Label>(relabel, "relabel");
    if (map.size() != held.outputs.classes) throw py::value_error("relabel needs one entry per class");
    held.outputs.relabel = map.data();
  }
  const bool vectors = held.outputs.form == Form::probs || held.outputs.form == Form::logits;
  if (vectors ? held.outputs.vector == nullptr : held.outputs.label == nullptr) {
    throw py::value_error("outputs of form '" + form + "' lack their arrays");
  }
  if (vectors && held.outputs.classes == 0) throw py::value_error("vector must have at least one class");
  if (held.outputs.form == Form::label_confidence && held.outputs.confidence == nullptr) {
    throw py::value_error("outputs of form 'label_confidence' lack their confidence");
  }
  return held;
}

std::shared_ptr<const Curve> make_curve(
    const std::optional<std::tuple<std::vector<float>, std::vector<float>>>& points) {
  if (!points) return nullptr;
  auto curve = std::make_shared<Curve>();
  std::tie(curve->cut, curve->value) = *points;
  if (curve->cut.size() != curve->value.size()) throw py::value_error("a curve needs as many values as cuts");
  return curve;
}

using Points = std::optional<std::tuple<std::vector<float>, std::vector<float>>>;
using Score = std::variant<std::string, std::shared_ptr<ScoreRule>>;  // by name, or a rule of one's own
using MemberRow = std::tuple<std::uint32_t, std::uint32_t, Score, double, float, Points, std::vector<Label>>;
using StageRow = std::tuple<std::uint32_t, std::uint32_t, float, float, Points>;

std::shared_ptr<Combiner> make_combiner(const std::string& name, std::size_t classes, const std::string& score) {
  if (name == "last") return std::make_shared<Last>();
  const Kind kind = kind_of(score).value_or(Kind::max_prob);
  if (name == "mean") return std::make_shared<Pool>(How::mean, classes, kind);
  if (name == "logpool") return std::make_shared<Pool>(How::logpool, classes, kind);
  if (name == "vote") return std::make_shared<Pool>(How::vote, classes, kind);
  throw py::value_error("unknown combiner '" + name + "'");
}

std::shared_ptr<Plan> make_plan(const std::vector<MemberRow>& members, const std::vector<StageRow>& stages,
                                const std::variant<std::string, std::shared_ptr<Combiner>>& combiner, bool oracle,
                                std::size_t classes, const std::string& score, const HeldStop* rule) {
  auto plan = std::make_shared<Plan>();
  const auto keep = [&](const Points& points) {
    const std::shared_ptr<const Curve> curve = make_curve(points);
    if (curve) plan->curves.push_back(curve);
    return curve.get();
  };
  for (const auto& [model, deployment, kind, weight, temperature, calibration, abstain] : members) {
    const auto* own = std::get_if<std::shared_ptr<ScoreRule>>(&kind);
    const ScoreKind known = own ? ScoreKind{} : kind_of(std::get<std::string>(kind));
    if (own) plan->held.push_back(*own);
    plan->members.push_back({model, deployment, known, weight, temperature, keep(calibration),
                             own ? own->get() : nullptr, abstain, static_cast<std::uint32_t>(plan->members.size())});
  }
  for (const auto& [first, count, threshold, per_us, curve] : stages) {
    plan->stages.push_back({first, count, threshold, per_us, keep(curve)});
  }
  const auto* name = std::get_if<std::string>(&combiner);
  plan->combiner = name ? make_combiner(*name, classes, score) : std::get<std::shared_ptr<Combiner>>(combiner);
  plan->oracle = oracle;
  if (rule != nullptr) {
    plan->rule = rule->rule;
    plan->held.push_back(rule->state);
  }
  validate(*plan);
  return plan;
}

}  // namespace

void register_plan(py::module_& module) {
  py::module_ plan = module.def_submodule("plan", "Plans, evidence, decisions and the live session.");

  py::class_<Held>(plan, "Outputs")
      .def(py::init(&make_outputs), py::arg("form"), py::arg("vector") = py::none(), py::arg("label") = py::none(),
           py::arg("confidence") = py::none(), py::arg("relabel") = py::none());

  // Other files register combiners of their own as functions or classes that give one of these.
  py::class_<Combiner, std::shared_ptr<Combiner>>(plan, "Combiner")
      .def(py::init(&make_combiner), py::arg("name"), py::arg("classes") = 0, py::arg("score") = "max_prob")
      .def_property_readonly("state_floats", &Combiner::state_floats)
      .def_property_readonly("memoryless", &Combiner::memoryless);

  py::class_<Plan, std::shared_ptr<Plan>>(plan, "Plan")
      .def(py::init(&make_plan), py::arg("members"), py::arg("stages"), py::arg("combiner"), py::arg("oracle"),
           py::arg("classes") = 0, py::arg("score") = "max_prob", py::arg("rule") = nullptr)
      .def_property_readonly("state_independent", &Plan::state_independent)
      .def_property_readonly("stages", [](const Plan& self) { return self.stages.size(); });

  py::class_<Evidence, std::shared_ptr<Evidence>>(plan, "Evidence")
      .def_readonly("stages", &Evidence::stages)
      .def_readonly("rows", &Evidence::rows)
      .def_readonly("missed_rows", &Evidence::missed_rows)
      .def_readonly("unsure_rows", &Evidence::unsure_rows)
      .def_property_readonly(
          "label",
          [](const py::object& self) {
            const auto& evidence = self.cast<const Evidence&>();
            return lend(evidence.label.data(),
                        {static_cast<py::ssize_t>(evidence.stages), static_cast<py::ssize_t>(evidence.rows)}, self);
          })
      .def_property_readonly("score", [](const py::object& self) {
        const auto& evidence = self.cast<const Evidence&>();
        return lend(evidence.score.data(),
                    {static_cast<py::ssize_t>(evidence.stages), static_cast<py::ssize_t>(evidence.rows)}, self);
      });

  py::class_<Decisions, std::shared_ptr<Decisions>>(plan, "Decisions")
      .def_readonly("itineraries", &Decisions::itineraries)
      .def_property_readonly("route", [](const py::object& self) {
        const auto& decisions = self.cast<const Decisions&>();
        return lend(decisions.route.data(), {static_cast<py::ssize_t>(decisions.route.size())}, self);
      });

  plan.def(
      "gather",
      [](const Plan& self, const std::vector<const Held*>& by_model, unsigned threads) {
        std::vector<Outputs> outputs;
        for (const Held* held : by_model) outputs.push_back(held == nullptr ? Outputs{} : held->outputs);
        const py::gil_scoped_release release;
        return std::make_shared<Evidence>(gather(self, outputs, threads));
      },
      py::arg("plan"), py::arg("outputs"), py::arg("threads") = 1);

  plan.def(
      "decide",
      [](const Plan& self, const Evidence& evidence, const py::object& truth) {
        std::span<const Label> labels;
        if (!truth.is_none()) labels = view<Label>(truth, "truth");
        const py::gil_scoped_release release;
        return std::make_shared<Decisions>(decide(self, evidence, labels));
      },
      py::arg("plan"), py::arg("evidence"), py::arg("truth") = py::none());

  plan.def(
      "settle",
      [](const py::object& scores, const py::object& thresholds, py::array_t<std::uint8_t> out) {
        const auto values = view<float>(scores, "scores");
        const auto cuts = view<float>(thresholds, "thresholds");
        const std::size_t stages = cuts.size() + 1;
        const auto rows = static_cast<std::size_t>(out.size());
        if (values.size() != rows * stages) throw py::value_error("scores must be (stages, rows)");
        std::uint8_t* settled = out.mutable_data();
        const py::gil_scoped_release release;
        settle(values.data(), rows, stages, cuts.data(), settled);
      },
      py::arg("scores"), py::arg("thresholds"), py::arg("out"));

  py::enum_<Status>(plan, "Status")
      .value("open", Status::open)
      .value("answered", Status::answered)
      .value("degraded", Status::degraded)
      .value("rejected", Status::rejected)
      .value("expired", Status::expired)
      .value("failed", Status::failed);

  py::class_<Session>(plan, "Session")
      .def(py::init([](std::shared_ptr<Plan> self, double uniform) {
             return std::make_unique<Session>(std::move(self), uniform);
           }),
           py::arg("plan"), py::arg("uniform") = 0.0)
      .def("ask", [](const Session& self) { return std::vector<std::uint32_t>(self.ask().begin(), self.ask().end()); })
      .def(
          "tell", [](Session& self, std::uint32_t member, const Held& held) { self.tell(member, held.outputs); },
          py::arg("member"), py::arg("outputs"))
      .def("step", &Session::step, py::arg("wait_us") = 0.0F,
           py::arg("remaining_us") = std::numeric_limits<float>::infinity(), py::arg("uniform") = 0.0,
           py::arg("can_go") = true)
      .def("settle", &Session::settle, py::arg("late"))
      .def_property_readonly("status", &Session::status)
      .def_property_readonly("stage", &Session::stage)
      .def_property_readonly("label", &Session::label)
      .def_property_readonly("score", &Session::score)
      .def_property_readonly("visited", [](const Session& self) {
        return std::vector<int>(self.visited().begin(), self.visited().end());
      });
}

}  // namespace coinfer::python
