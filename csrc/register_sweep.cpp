#include <pybind11/stl.h>

#include <memory>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "coinfer/sweep/bootstrap.hpp"
#include "coinfer/sweep/cuts.hpp"
#include "coinfer/sweep/grid.hpp"
#include "coinfer/sweep/pairs.hpp"
#include "coinfer/sweep/quantiles.hpp"
#include "coinfer/sweep/risk.hpp"
#include "coinfer/sweep/vectors.hpp"
#include "coinfer/threads.hpp"
#include "register.hpp"

namespace coinfer::python {
namespace {

Quantity quantity_of(const py::object& quantity) {
  if (py::isinstance<py::array_t<std::uint8_t>>(quantity)) return view<std::uint8_t>(quantity, "quantity");
  return view<std::int64_t>(quantity, "quantity");
}

std::vector<Quantity> quantities_of(const std::vector<py::object>& quantities) {
  std::vector<Quantity> out;
  for (const py::object& quantity : quantities) out.push_back(quantity_of(quantity));
  return out;
}

std::span<const std::uint32_t> rows_of(const py::object& rows) {
  if (rows.is_none()) return {};
  const auto chosen = view<std::uint32_t>(rows, "rows");
  if (chosen.empty()) throw py::value_error("no rows to sweep over");
  return chosen;
}

py::list give_all(std::vector<std::vector<std::int64_t>>&& quantities) {
  py::list totals;
  for (auto& quantity : quantities) totals.append(give(std::move(quantity)));
  return totals;
}

template <class Found>
py::tuple give_cuts(Found&& found, std::size_t stages) {
  const auto points = static_cast<py::ssize_t>(found.threshold.size());
  return py::make_tuple(give(std::move(found.threshold)),
                        give(std::move(found.settled), {static_cast<py::ssize_t>(stages), points}),
                        give_all(std::move(found.quantities)));
}

py::tuple give_pair(const Pair& pair) {
  return py::make_tuple(pair.first, pair.second, pair.cost, pair.gain, pair.feasible);
}

std::vector<Limit> limits_of(const std::vector<std::pair<py::object, std::int64_t>>& limits) {
  std::vector<Limit> out;
  for (const auto& [cost, at_most] : limits) out.push_back({quantity_of(cost), at_most});
  return out;
}

}  // namespace

void register_sweep(py::module_& module) {
  py::module_ sweep = module.def_submodule("sweep", "Operating points of a plan, all of them, in one pass.");
  sweep.def(
      "cuts",
      [](const Evidence& evidence, const std::vector<py::object>& quantities, const py::object& rows) {
        const std::vector<Quantity> sums = quantities_of(quantities);
        const auto chosen = rows_of(rows);
        Cuts found;
        {
          const py::gil_scoped_release release;
          found = cuts(evidence, sums, chosen);
        }
        return give_cuts(std::move(found), evidence.stages);
      },
      py::arg("evidence"), py::arg("quantities"), py::arg("rows") = py::none());
  sweep.def(
      "line",
      [](const Evidence& evidence, const py::object& thresholds, std::size_t stage,
         const std::vector<py::object>& quantities, const py::object& rows) {
        const auto bars = view<float>(thresholds, "thresholds");
        const std::vector<Quantity> sums = quantities_of(quantities);
        const auto chosen = rows_of(rows);
        Cuts found;
        {
          const py::gil_scoped_release release;
          found = line(evidence, bars, stage, sums, chosen);
        }
        return give_cuts(std::move(found), evidence.stages);
      },
      py::arg("evidence"), py::arg("thresholds"), py::arg("stage"), py::arg("quantities"),
      py::arg("rows") = py::none());
  sweep.def(
      "levels",
      [](const Evidence& evidence, std::size_t stage, std::size_t count, const py::object& rows) {
        return give(levels(evidence, stage, count, rows_of(rows)));
      },
      py::arg("evidence"), py::arg("stage"), py::arg("count"), py::arg("rows") = py::none());
  sweep.def(
      "grid",
      [](const Evidence& evidence, const std::vector<std::vector<float>>& thresholds,
         const std::vector<py::object>& quantities, const py::object& rows, unsigned threads) {
        const std::vector<Quantity> sums = quantities_of(quantities);
        const auto chosen = rows_of(rows);
        Grid found;
        {
          const py::gil_scoped_release release;
          found = grid(evidence, thresholds, sums, chosen, threads);
        }
        const auto stages = static_cast<py::ssize_t>(evidence.stages);
        const auto cells = static_cast<py::ssize_t>(found.settled.size()) / stages;
        return py::make_tuple(give(std::move(found.settled), {stages, cells}), give_all(std::move(found.quantities)));
      },
      py::arg("evidence"), py::arg("thresholds"), py::arg("quantities"), py::arg("rows") = py::none(),
      py::arg("threads") = 1);
  sweep.def(
      "vectors",
      [](const Evidence& evidence, const py::object& thresholds, const std::vector<py::object>& quantities,
         const py::object& rows, unsigned threads) {
        const auto bars = view<float>(thresholds, "thresholds");
        const std::vector<Quantity> sums = quantities_of(quantities);
        const auto chosen = rows_of(rows);
        Sums found;
        {
          const py::gil_scoped_release release;
          found = vectors(evidence, bars, sums, chosen, threads);
        }
        const auto stages = static_cast<py::ssize_t>(evidence.stages);
        const auto count = static_cast<py::ssize_t>(found.settled.size()) / stages;
        return py::make_tuple(give(std::move(found.settled), {stages, count}), give_all(std::move(found.quantities)));
      },
      py::arg("evidence"), py::arg("thresholds"), py::arg("quantities"), py::arg("rows") = py::none(),
      py::arg("threads") = 1);
  sweep.def(
      "quantiles",
      [](const Evidence& evidence, const py::object& thresholds, const py::object& values, std::uint64_t reach,
         const py::object& rows, unsigned threads) {
        const auto bars = view<float>(thresholds, "thresholds");
        const auto all = view<std::int64_t>(values, "values");
        const auto chosen = rows_of(rows);
        std::vector<std::int64_t> found;
        {
          const py::gil_scoped_release release;
          found = quantiles(evidence, bars, all, reach, chosen, threads);
        }
        return give(std::move(found));
      },
      py::arg("evidence"), py::arg("thresholds"), py::arg("values"), py::arg("reach"), py::arg("rows") = py::none(),
      py::arg("threads") = 1);
  sweep.def(
      "cheapest_pair",
      [](const Evidence& evidence, const py::object& cost, const py::object& gain, std::int64_t at_least,
         const std::vector<std::pair<py::object, std::int64_t>>& limits, const py::object& rows) {
        const Quantity costs = quantity_of(cost);
        const Quantity gains = quantity_of(gain);
        const std::vector<Limit> bounds = limits_of(limits);
        const auto chosen = rows_of(rows);
        Pair found;
        {
          const py::gil_scoped_release release;
          found = cheapest_pair(evidence, costs, gains, at_least, bounds, chosen);
        }
        return give_pair(found);
      },
      py::arg("evidence"), py::arg("cost"), py::arg("gain"), py::arg("at_least"),
      py::arg("limits") = std::vector<std::pair<py::object, std::int64_t>>{}, py::arg("rows") = py::none());
  sweep.def(
      "surest_pair",
      [](const Evidence& evidence, const py::object& cost, const py::object& gain,
         const std::vector<std::pair<py::object, std::int64_t>>& limits, const py::object& rows) {
        const Quantity costs = quantity_of(cost);
        const Quantity gains = quantity_of(gain);
        const std::vector<Limit> bounds = limits_of(limits);
        const auto chosen = rows_of(rows);
        Pair found;
        {
          const py::gil_scoped_release release;
          found = surest_pair(evidence, costs, gains, bounds, chosen);
        }
        return give_pair(found);
      },
      py::arg("evidence"), py::arg("cost"), py::arg("gain"),
      py::arg("limits") = std::vector<std::pair<py::object, std::int64_t>>{}, py::arg("rows") = py::none());
  sweep.def(
      "betting",
      [](const py::object& losses, double bound, double delta, unsigned threads) {
        const auto all = view<std::int8_t>(losses, "losses");
        const auto array = py::reinterpret_borrow<py::array>(losses);
        if (array.ndim() != 2) throw py::value_error("losses must be [test][sample]");
        const bool allowed = bound > -1 && bound < 1 && delta > 0 && delta < 1;
        if (!allowed) {
          throw py::value_error("bound must lie between -1 and 1, delta between 0 and 1");
        }
        const auto tests = static_cast<std::size_t>(array.shape(0));
        const auto samples = static_cast<std::size_t>(array.shape(1));
        std::vector<double> found(tests);
        {
          const py::gil_scoped_release release;
          split(tests, threads, 1, [&](std::size_t first, std::size_t last) {
            for (std::size_t t = first; t < last; ++t) {
              found[t] = betting(all.subspan(t * samples, samples), bound, delta);
            }
          });
        }
        return give(std::move(found));
      },
      py::arg("losses"), py::arg("bound"), py::arg("delta"), py::arg("threads") = 1);
  sweep.def(
      "bootstrap",
      [](const py::object& tops, const py::object& bottoms, std::size_t replicates, std::uint64_t seed,
         unsigned threads) {
        const auto above = view<double>(tops, "tops");
        const auto below = view<double>(bottoms, "bottoms");
        const auto array = py::reinterpret_borrow<py::array>(tops);
        if (array.ndim() != 2) throw py::value_error("tops must be [ratio][sample]");
        const auto ratios = static_cast<std::size_t>(array.shape(0));
        std::vector<double> found;
        {
          const py::gil_scoped_release release;
          found = bootstrap(above, below, ratios, replicates, seed, threads);
        }
        return give(std::move(found), {static_cast<py::ssize_t>(ratios), static_cast<py::ssize_t>(replicates)});
      },
      py::arg("tops"), py::arg("bottoms"), py::arg("replicates"), py::arg("seed"), py::arg("threads") = 1);
  sweep.def("midway", &midway, py::arg("low"), py::arg("high"));
}

}  // namespace coinfer::python
