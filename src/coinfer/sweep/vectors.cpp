#include "coinfer/sweep/vectors.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <stdexcept>
#include <variant>

#include "coinfer/cpu.hpp"
#include "coinfer/sweep/tally.hpp"
#include "coinfer/threads.hpp"

namespace coinfer {
namespace {

using isa::set_rows;
using isa::set_words;

isa::Tally tally() noexcept {
  switch (implementation()) {
#if defined(__x86_64__)
    case Isa::avx512: return isa::tally_avx512;
    case Isa::avx2: return isa::tally_avx2;
#endif
    default: return isa::tally_baseline;
  }
}

/// The distinct thresholds of one stage, ascending, and where each vector's stands among them. A threshold that is NaN
/// is reached by no score; it stands behind all others.
struct Levels {
  std::vector<float> distinct;
  std::vector<std::uint32_t> at;
};

Levels levels_of(std::span<const float> thresholds, std::size_t cuts, std::size_t stage) {
  const std::size_t count = thresholds.size() / cuts;
  Levels out;
  for (std::size_t v = 0; v < count; ++v) {
    const float threshold = thresholds[v * cuts + stage];
    if (!std::isnan(threshold)) out.distinct.push_back(threshold + 0.0F);
  }
  std::sort(out.distinct.begin(), out.distinct.end());
  out.distinct.erase(std::unique(out.distinct.begin(), out.distinct.end()), out.distinct.end());
  for (std::size_t v = 0; v < count; ++v) {
    const float threshold = thresholds[v * cuts + stage];
    const auto found = std::isnan(threshold) ? out.distinct.end()
                                             : std::lower_bound(out.distinct.begin(), out.distinct.end(), threshold);
    out.at.push_back(static_cast<std::uint32_t>(found - out.distinct.begin()));
  }
  return out;
}

}  // namespace

Sums vectors(const Evidence& evidence, std::span<const float> thresholds, std::span<const Quantity> quantities,
             std::span<const std::uint32_t> rows, unsigned threads) {
  const std::size_t stages = evidence.stages;
  const std::size_t cuts = stages - 1;
  if (cuts == 0 || thresholds.empty() || thresholds.size() % cuts != 0) {
    throw std::invalid_argument("a threshold vector has one entry per stage but the last");
  }
  const std::size_t count = thresholds.size() / cuts;
  const std::size_t total = rows.empty() ? evidence.rows : rows.size();
  for (const std::uint32_t row : rows) {
    if (row >= evidence.rows) throw std::invalid_argument("a row lies outside the evidence");
  }
  std::vector<const std::uint8_t*> flags;
  for (const Quantity& quantity : quantities) {
    const std::size_t size = std::visit([](const auto& values) { return values.size(); }, quantity);
    if ((quantity.index() != 0 || size != stages) && size != stages * evidence.rows) {
      throw std::invalid_argument("a quantity has one value per stage, or one per stage and sample");
    }
    if (quantity.index() == 1) flags.push_back(std::get<1>(quantity).data());
  }
  std::vector<Levels> levels;
  std::vector<std::uint32_t> at(count * cuts);
  for (std::size_t stage = 0; stage < cuts; ++stage) {
    levels.push_back(levels_of(thresholds, cuts, stage));
    for (std::size_t v = 0; v < count; ++v) at[v * cuts + stage] = levels[stage].at[v];
  }
  std::vector<std::int64_t> settled(stages * count);
  std::vector<std::int64_t> sums(flags.size() * count);
  std::mutex adding;
  const isa::Tally add = tally();
  split(total, threads, set_rows, [&](std::size_t begin, std::size_t end) {
    std::vector<std::int64_t> my_settled(settled.size());
    std::vector<std::int64_t> my_sums(sums.size());
    std::vector<std::vector<std::uint64_t>> sets;  // [stage][threshold][word]
    for (const Levels& level : levels) sets.emplace_back((level.distinct.size() + 1) * set_words);
    std::vector<std::uint64_t> flagged(flags.size() * stages * set_words);
    std::vector<const std::uint64_t*> reached;
    for (const auto& set : sets) reached.push_back(set.data());
    std::vector<const std::uint64_t*> flag_sets;
    for (std::size_t i = 0; i < flags.size() * stages; ++i) flag_sets.push_back(flagged.data() + i * set_words);
    for (std::size_t first = begin; first < end; first += set_rows) {
      const std::size_t length = std::min(set_rows, end - first);
      const auto row_at = [&](std::size_t i) { return rows.empty() ? first + i : std::size_t{rows[first + i]}; };
      std::array<std::uint64_t, set_words> present{};
      for (std::size_t i = 0; i < length; ++i) present[i / 64] |= std::uint64_t{1} << (i % 64);
      for (std::size_t stage = 0; stage < cuts; ++stage) {
        const std::vector<float>& distinct = levels[stage].distinct;
        std::vector<std::uint64_t>& set = sets[stage];
        std::fill(set.begin(), set.end(), 0);
        for (std::size_t i = 0; i < length; ++i) {
          const float score = evidence.scores(stage)[row_at(i)];
          if (std::isnan(score)) continue;
          const auto above = std::upper_bound(distinct.begin(), distinct.end(), score);
          if (above == distinct.begin()) continue;
          const auto highest = static_cast<std::size_t>(above - distinct.begin()) - 1;
          set[highest * set_words + i / 64] |= std::uint64_t{1} << (i % 64);
        }
        for (std::size_t t = distinct.size(); t-- > 1;) {
          for (std::size_t w = 0; w < set_words; ++w) set[(t - 1) * set_words + w] |= set[t * set_words + w];
        }
      }
      std::fill(flagged.begin(), flagged.end(), 0);
      for (std::size_t q = 0; q < flags.size(); ++q) {
        for (std::size_t stage = 0; stage < stages; ++stage) {
          std::uint64_t* words = flagged.data() + (q * stages + stage) * set_words;
          for (std::size_t i = 0; i < length; ++i) {
            words[i / 64] |= static_cast<std::uint64_t>(flags[q][stage * evidence.rows + row_at(i)] != 0) << (i % 64);
          }
        }
      }
      add({reached.data(), at.data(), flag_sets.data(), present.data(), count, cuts, flags.size(), my_settled.data(),
           my_sums.data()});
    }
    const std::scoped_lock lock(adding);
    for (std::size_t i = 0; i < settled.size(); ++i) settled[i] += my_settled[i];
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += my_sums[i];
  });
  Sums out;
  std::size_t flag = 0;
  for (const Quantity& quantity : quantities) {
    std::vector<std::int64_t> values(count);
    if (quantity.index() == 1) {
      std::copy_n(sums.begin() + static_cast<std::ptrdiff_t>(flag++ * count), count, values.begin());
    } else if (const auto numbers = std::get<0>(quantity); numbers.size() == stages) {
      for (std::size_t stage = 0; stage < stages; ++stage) {
        for (std::size_t v = 0; v < count; ++v) values[v] += numbers[stage] * settled[stage * count + v];
      }
    } else {  // a number of its own for every sample: each vector walks the rows
      split(count, threads, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {
          const float* bars = thresholds.data() + v * cuts;
          for (std::size_t i = 0; i < total; ++i) {
            const std::size_t row = rows.empty() ? i : rows[i];
            std::size_t stage = 0;
            while (stage < cuts && !(evidence.scores(stage)[row] >= bars[stage])) ++stage;
            values[v] += numbers[stage * evidence.rows + row];
          }
        }
      });
    }
    out.quantities.push_back(std::move(values));
  }
  out.settled = std::move(settled);
  return out;
}

}  // namespace coinfer
