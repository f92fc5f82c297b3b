#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "arrays.hpp"
#include "coinfer/sim/queues.hpp"
#include "coinfer/sim/replay.hpp"
#include "held.hpp"
#include "register.hpp"

namespace coinfer::python {
namespace {

using HopRow = std::tuple<std::uint32_t, std::int64_t, std::int64_t, double>;
using LegRow =
    std::tuple<std::int64_t, std::int64_t, std::vector<std::tuple<std::uint32_t, double>>, std::vector<HopRow>>;
using ServiceRow = std::tuple<std::string, double, double, py::object>;
using ConsultRow = std::tuple<LegRow, LegRow, ServiceRow, std::int64_t, std::int64_t>;
/// station or (after them) directed link, from, to, factor (0: down), silent, whole
using OutageRow = std::tuple<std::uint32_t, std::int64_t, std::int64_t, double, bool, bool>;

/// Lanes point into NumPy arrays (measured service times); whoever holds the lane holds them.
struct HeldLane {
  Lane lane;
  std::vector<py::object> arrays;
};

struct HeldReplay {
  std::unique_ptr<Replay> replay;
  std::size_t lanes = 0;
  std::size_t samples = 0;
  std::vector<py::object> arrays;
};

Leg leg_of(const LegRow& row) {
  Leg leg;
  leg.ns = std::get<0>(row);
  leg.pico_usd = std::get<1>(row);
  for (const auto& [link, mean_ns] : std::get<2>(row)) leg.jitters.push_back({link, mean_ns});
  for (const auto& [link, send, delay, jitter] : std::get<3>(row)) leg.hops.push_back({link, send, delay, jitter});
  return leg;
}

Law law_of(const std::string& name) {
  if (name == "constant") return Law::constant;
  if (name == "exponential") return Law::exponential;
  if (name == "lognormal") return Law::lognormal;
  if (name == "gamma") return Law::gamma;
  if (name == "measured") return Law::measured;
  if (name == "empirical") return Law::empirical;
  throw py::value_error("unknown service law '" + name + "'");
}

HeldLane make_lane(std::shared_ptr<Plan> plan, std::shared_ptr<Evidence> evidence, std::shared_ptr<Decisions> decisions,
                   const std::vector<LegRow>& enter, const std::vector<LegRow>& back,
                   const std::vector<ConsultRow>& members, const std::vector<std::int64_t>& least) {
  HeldLane held;
  held.lane.plan = std::move(plan);
  held.lane.evidence = std::move(evidence);
  held.lane.decisions = std::move(decisions);
  held.lane.least = least;
  for (const LegRow& row : enter) held.lane.enter.push_back(leg_of(row));
  for (const LegRow& row : back) held.lane.back.push_back(leg_of(row));
  for (const auto& [up, down, service, price, median_ns] : members) {
    Consult consult{leg_of(up), leg_of(down), {}, price, median_ns};
    const auto& [law, a, b, measured] = service;
    consult.service.law = law_of(law);
    consult.service.a = a;
    consult.service.b = b;
    if (!measured.is_none()) {
      const auto times = view<float>(measured, "service_us");
      const bool drawn = consult.service.law == Law::empirical;
      if (times.size() != (drawn ? static_cast<std::size_t>(b) : held.lane.evidence->rows) || times.empty())
        throw py::value_error(drawn ? "an empirical law needs times" : "service_us needs one time per sample");
      consult.service.measured_us = times.data();
      held.arrays.push_back(measured);
    } else if (consult.service.law == Law::measured || consult.service.law == Law::empirical) {
      throw py::value_error("a measured law needs times");
    }
    held.lane.members.push_back(std::move(consult));
  }
  return held;
}

/// Spans over a checked batch; lanes and samples must be in range.
Requests requests_of(const py::object& lane, const py::object& sample, const py::object& deadline_ns,
                     std::uint64_t first, std::size_t lanes, std::size_t samples) {
  Requests requests;
  requests.first = first;
  requests.lane = view<std::int32_t>(lane, "lane");
  requests.sample = view<std::int32_t>(sample, "sample");
  if (!deadline_ns.is_none()) requests.deadline_ns = view<std::int64_t>(deadline_ns, "deadline_ns");
  if (requests.lane.size() != requests.sample.size() ||
      (!requests.deadline_ns.empty() && requests.deadline_ns.size() != requests.sample.size())) {
    throw py::value_error("the columns of a trace differ in length");
  }
  // The top bit of a number, or of what the largest allowed one exceeds it by, says that it is out of range.
  std::uint32_t beyond = 0;
  const auto last_lane = static_cast<std::uint32_t>(lanes - 1);
  const auto last_sample = static_cast<std::uint32_t>(samples - 1);
  const std::size_t rows = requests.sample.size();
  for (std::size_t i = 0; i < rows; ++i) {
    const auto l = static_cast<std::uint32_t>(requests.lane[i]);
    const auto s = static_cast<std::uint32_t>(requests.sample[i]);
    beyond |= l | (last_lane - l) | s | (last_sample - s);
  }
  if (rows > 0 && (lanes == 0 || samples == 0 || beyond >> 31 != 0))
    throw py::index_error("a request's lane or sample is out of range");
  return requests;
}

/// The same with arrivals and, perhaps, priorities.
Requests queued_of(const py::object& arrival_ns, const py::object& lane, const py::object& sample,
                   const py::object& deadline_ns, const py::object& priority, std::uint64_t first, std::size_t lanes,
                   std::size_t samples) {
  Requests requests = requests_of(lane, sample, deadline_ns, first, lanes, samples);
  requests.arrival_ns = view<std::int64_t>(arrival_ns, "arrival_ns");
  if (!priority.is_none()) requests.priority = view<std::int32_t>(priority, "priority");
  if (requests.arrival_ns.size() != requests.sample.size() ||
      (!requests.priority.empty() && requests.priority.size() != requests.sample.size())) {
    throw py::value_error("the columns of a trace differ in length");
  }
  return requests;
}

/// Queues point into NumPy arrays: labels, measured service times, outputs.
struct HeldQueues {
  std::unique_ptr<Queues> queues;
  std::size_t lanes = 0;
  std::size_t samples = 0;
  std::vector<py::object> arrays;
};

/// instances, max_batch, preferred, batch_delay_ns, queue_max, batch_ns, mean_ns
using StationRow = std::tuple<std::uint32_t, std::uint32_t, std::vector<std::uint32_t>, std::int64_t, py::object,
                              std::vector<std::int64_t>, double>;

Station station_of(const StationRow& row) {
  Station station;
  py::object queue_max;
  std::tie(station.instances, station.max_batch, station.preferred, station.batch_delay_ns, queue_max, station.batch_ns,
           station.mean_ns) = row;
  if (!queue_max.is_none()) station.queue_max = queue_max.cast<std::uint32_t>();
  if (station.max_batch == 0) throw py::value_error("a station serves at least one request at a time");
  if (station.batch_ns.size() % station.max_batch != 0)
    throw py::value_error("batch_ns needs as many times for each size of batch");
  return station;
}

std::vector<Station> stations_of(const std::vector<StationRow>& rows) {
  std::vector<Station> stations;
  for (const StationRow& row : rows) stations.push_back(station_of(row));
  return stations;
}

std::vector<Windows> outages_of(const std::vector<OutageRow>& rows, std::size_t places) {
  std::vector<Windows> outages(rows.empty() ? 0 : places);
  for (const auto& [place, from, to, factor, silent, whole] : rows) {
    if (place >= places) throw py::value_error("an outage of a place that there is not");
    Windows& windows = outages[place];
    if (from < 0 || from >= to || factor < 0.0 || (!windows.empty() && windows.back().to > from))
      throw py::value_error("the outages of a place must be ascending and apart");
    windows.push_back({from, to, factor, silent, whole});
  }
  return outages;
}

QueueEngine engine_of(const std::string& name) {
  if (name == "feed-forward") return QueueEngine::feed_forward;
  if (name == "hops") return QueueEngine::hops;
  if (name == "events") return QueueEngine::events;
  throw py::value_error("unknown engine '" + name + "'");
}

py::object wide(Wide value) {
  const auto low = static_cast<std::uint64_t>(value);
  const auto high = static_cast<std::int64_t>(value >> 64);
  return py::int_(high) * py::int_(std::uint64_t{1} << 32) * py::int_(std::uint64_t{1} << 32) + py::int_(low);
}

py::dict tally_of(Tally tally) {
  py::dict out;
  out["requests"] = tally.requests;
  out["status"] = std::vector<std::uint64_t>(tally.status.begin(), tally.status.end());
  out["labelled"] = tally.labelled;
  out["correct"] = tally.correct;
  out["in_time"] = tally.in_time;
  out["truths"] = tally.truths;
  out["consulted"] = tally.consulted;
  out["latency_ns"] = wide(tally.latency_ns);
  out["network_ns"] = wide(tally.network_ns);
  out["queue_ns"] = wide(tally.queue_ns);
  out["service_ns"] = wide(tally.service_ns);
  out["pico_usd"] = wide(tally.pico_usd);
  out["lane_requests"] = give(std::move(tally.lane_requests));
  out["lane_labelled"] = give(std::move(tally.lane_labelled));
  out["lane_correct"] = give(std::move(tally.lane_correct));
  out["settled"] = give(std::move(tally.settled));
  out["answered"] = give(std::move(tally.answered));
  out["sample_weight"] = give(std::move(tally.sample_weight));
  out["class_labelled"] = give(std::move(tally.class_labelled));
  out["class_correct"] = give(std::move(tally.class_correct));
  std::vector<std::int64_t> latency;
  std::vector<std::uint64_t> count;
  latency.reserve(tally.latencies.size());
  count.reserve(tally.latencies.size());
  for (const auto& [ns, requests] : tally.latencies) {
    latency.push_back(ns);
    count.push_back(requests);
  }
  out["latencies_ns"] = give(std::move(latency));
  out["latency_counts"] = give(std::move(count));
  return out;
}

py::list loads_of(std::span<const Load> loads) {
  py::list out;
  for (const Load& load : loads) {
    py::dict row;
    row["served"] = load.served;
    row["rejected"] = load.rejected;
    row["dropped"] = load.dropped;
    row["refused"] = load.refused;
    row["batches"] = load.batches;
    row["waiting_max"] = load.waiting_max;
    row["busy_ns"] = wide(load.busy_ns);
    row["wait_ns"] = wide(load.wait_ns);
    row["wait_ns_max"] = load.wait_ns_max;
    row["batch_size"] = load.batch_size;
    out.append(row);
  }
  return out;
}

template <class T>
std::span<T> fresh(py::dict& columns, const char* name, std::size_t rows) {
  py::array_t<T> array(static_cast<py::ssize_t>(rows));
  columns[name] = array;
  return {array.mutable_data(), rows};
}

Columns fresh_columns(py::dict& out, std::size_t rows) {
  Columns columns;
  columns.answer = fresh<Label>(out, "answer", rows);
  columns.confidence = fresh<float>(out, "confidence", rows);
  columns.settled = fresh<std::uint8_t>(out, "settled", rows);
  columns.answered_by = fresh<std::uint8_t>(out, "answered_by", rows);
  columns.consulted = fresh<std::uint8_t>(out, "consulted", rows);
  columns.correct = fresh<std::int8_t>(out, "correct", rows);
  columns.status = fresh<std::uint8_t>(out, "status", rows);
  columns.network_ns = fresh<std::int64_t>(out, "network_ns", rows);
  columns.queue_ns = fresh<std::int64_t>(out, "queue_ns", rows);
  columns.service_ns = fresh<std::int64_t>(out, "service_ns", rows);
  columns.pico_usd = fresh<std::int64_t>(out, "pico_usd", rows);
  return columns;
}

void register_queues(py::module_& sim) {
  py::class_<HeldQueues>(sim, "Queues")
      .def(py::init([](const std::vector<HeldLane*>& lanes, const py::object& truth, std::size_t classes,
                       std::uint64_t seed, const std::vector<StationRow>& stations, std::size_t links,
                       const std::vector<Held*>& outputs, const std::string& engine, bool rows, std::uint64_t row_first,
                       std::uint64_t row_last, std::int64_t warmup_ns, std::int64_t gossip_ns, bool exact,
                       const std::vector<OutageRow>& outages, std::size_t expected) {
             HeldQueues held;
             std::vector<Lane> plain;
             for (const HeldLane* lane : lanes) {
               plain.push_back(lane->lane);
               held.arrays.insert(held.arrays.end(), lane->arrays.begin(), lane->arrays.end());
             }
             std::vector<Station> places = stations_of(stations);
             std::vector<Outputs> tables;
             for (const Held* table : outputs) {
               tables.push_back(table->outputs);
               held.arrays.insert(held.arrays.end(), table->arrays.begin(), table->arrays.end());
             }
             std::span<const Label> labels;
             if (!truth.is_none()) labels = view<Label>(truth, "labels");
             held.arrays.push_back(truth);
             held.lanes = plain.size();
             held.samples = plain.empty() ? 0 : plain.front().evidence->rows;
             QueueOptions options;
             options.engine = engine_of(engine);
             options.exact = exact;
             options.expected = expected;
             options.rows = rows;
             options.row_first = row_first;
             options.row_last = row_last;
             options.warmup_ns = warmup_ns;
             options.gossip_ns = gossip_ns;
             options.outages = outages_of(outages, places.size() + links);
             held.queues = std::make_unique<Queues>(std::move(plain), labels, classes, seed, std::move(places), links,
                                                    std::move(tables), options);
             return held;
           }),
           py::arg("lanes"), py::arg("labels"), py::arg("classes"), py::arg("seed"), py::arg("stations"),
           py::arg("links"), py::arg("outputs"), py::arg("engine"), py::arg("rows") = false, py::arg("row_first") = 0,
           py::arg("row_last") = UINT64_MAX, py::arg("warmup_ns") = 0, py::arg("gossip_ns") = 0,
           py::arg("exact") = true, py::arg("outages") = std::vector<OutageRow>{}, py::arg("expected") = 0)
      .def(
          "push",
          [](const HeldQueues& self, const py::object& arrival_ns, const py::object& lane, const py::object& sample,
             const py::object& deadline_ns, const py::object& priority, std::uint64_t first) {
            const Requests requests =
                queued_of(arrival_ns, lane, sample, deadline_ns, priority, first, self.lanes, self.samples);
            const py::gil_scoped_release release;
            self.queues->push(requests);
          },
          py::arg("arrival_ns"), py::arg("lane"), py::arg("sample"), py::arg("deadline_ns") = py::none(),
          py::arg("priority") = py::none(), py::arg("first") = 0)
      .def_static(
          "feeds_forward",
          [](const std::vector<HeldLane*>& lanes, const std::vector<StationRow>& stations) {
            std::vector<Lane> plain;
            for (const HeldLane* lane : lanes) plain.push_back(lane->lane);
            return Queues::feeds_forward(plain, stations_of(stations));
          },
          py::arg("lanes"), py::arg("stations"))
      .def("finish",
           [](const HeldQueues& self) {
             const py::gil_scoped_release release;
             self.queues->finish();
           })
      .def("tally", [](const HeldQueues& self) { return tally_of(self.queues->tally()); })
      .def(
          "nearest_ranks",
          [](const HeldQueues& self, const py::object& shares) {
            const auto asked = view<double>(shares, "shares");
            std::vector<std::int64_t> out;
            {
              const py::gil_scoped_release release;
              out = nearest_ranks(self.queues->latencies(), asked);
            }
            return give(std::move(out));
          },
          py::arg("shares"))
      .def("stations", [](const HeldQueues& self) { return loads_of(self.queues->stations()); })
      .def("links", [](const HeldQueues& self) { return loads_of(self.queues->links()); })
      .def("rescue",
           [](const HeldQueues& self) {
             const Rescue rescue = self.queues->rescue();
             py::dict out;
             out["retried"] = rescue.retried;
             out["broken"] = rescue.broken;
             out["fell_back"] = rescue.fell_back;
             return out;
           })
      .def_property_readonly("in_flight", [](const HeldQueues& self) { return self.queues->in_flight(); })
      .def_property_readonly("span_ns", [](const HeldQueues& self) { return self.queues->span_ns(); })
      .def_property_readonly("arrivals_ns", [](const HeldQueues& self) { return self.queues->arrivals_ns(); })
      .def("take", [](const HeldQueues& self) {
        const std::vector<Ended> ended = self.queues->take();
        py::dict out;
        const Columns columns = fresh_columns(out, ended.size());
        for (std::size_t i = 0; i < ended.size(); ++i) columns.set(i, ended[i].outcome);
        return out;
      });
}

}  // namespace

void register_sim(py::module_& module) {
  py::module_ sim = module.def_submodule("sim", "Replay of traces.");

  py::class_<HeldLane>(sim, "Lane")
      .def(py::init(&make_lane), py::arg("plan"), py::arg("evidence"), py::arg("decisions"), py::arg("enter"),
           py::arg("back"), py::arg("members"), py::arg("least") = std::vector<std::int64_t>{});

  py::class_<Census>(sim, "Census")
      .def(py::init<std::size_t, std::size_t>(), py::arg("lanes"), py::arg("samples"))
      .def(
          "push",
          [](Census& self, const py::object& lane, const py::object& sample, unsigned threads) {
            const Requests requests = requests_of(lane, sample, py::none(), 0, self.lanes(), self.samples());
            const py::gil_scoped_release release;
            self.push(requests, threads);
          },
          py::arg("lane"), py::arg("sample"), py::arg("threads") = 1)
      .def_property_readonly("counts", [](const py::object& self) {
        const auto& census = self.cast<const Census&>();
        return lend(census.counts().data(),
                    {static_cast<py::ssize_t>(census.lanes()), static_cast<py::ssize_t>(census.samples())}, self);
      });

  py::class_<HeldReplay>(sim, "Replay")
      .def(py::init([](const std::vector<HeldLane*>& lanes, const py::object& truth, std::size_t classes,
                       std::uint64_t seed) {
             HeldReplay held;
             std::vector<Lane> plain;
             for (const HeldLane* lane : lanes) {
               plain.push_back(lane->lane);
               held.arrays.insert(held.arrays.end(), lane->arrays.begin(), lane->arrays.end());
             }
             std::span<const Label> labels;
             if (!truth.is_none()) labels = view<Label>(truth, "labels");
             held.arrays.push_back(truth);
             held.lanes = plain.size();
             held.samples = plain.empty() ? 0 : plain.front().evidence->rows;
             held.replay = std::make_unique<Replay>(std::move(plain), labels, classes, seed);
             return held;
           }),
           py::arg("lanes"), py::arg("labels"), py::arg("classes"), py::arg("seed"))
      .def_property_readonly("deterministic", [](const HeldReplay& self) { return self.replay->deterministic(); })
      .def(
          "run_census",
          [](const HeldReplay& self, const Census& census) {
            Tally tally;
            {
              const py::gil_scoped_release release;
              tally = self.replay->run(census);
            }
            return tally_of(std::move(tally));
          },
          py::arg("census"))
      .def(
          "run",
          [](const HeldReplay& self, const py::object& lane, const py::object& sample, const py::object& deadline_ns,
             unsigned threads) {
            const Requests requests = requests_of(lane, sample, deadline_ns, 0, self.lanes, self.samples);
            Tally tally;
            {
              const py::gil_scoped_release release;
              tally = self.replay->run(requests, threads);
            }
            return tally_of(std::move(tally));
          },
          py::arg("lane"), py::arg("sample"), py::arg("deadline_ns") = py::none(), py::arg("threads") = 1)
      .def(
          "outcomes",
          [](const HeldReplay& self, const py::object& lane, const py::object& sample, const py::object& deadline_ns,
             std::uint64_t first, unsigned threads) {
            const Requests requests = requests_of(lane, sample, deadline_ns, first, self.lanes, self.samples);
            const std::size_t rows = requests.sample.size();
            py::dict out;
            const Columns columns = fresh_columns(out, rows);
            {
              const py::gil_scoped_release release;
              self.replay->outcomes(requests, columns, threads);
            }
            return out;
          },
          py::arg("lane"), py::arg("sample"), py::arg("deadline_ns") = py::none(), py::arg("first") = 0,
          py::arg("threads") = 1);

  register_queues(sim);
  sim.def("philox", &philox, py::arg("counter"), py::arg("key"));
}

}  // namespace coinfer::python
