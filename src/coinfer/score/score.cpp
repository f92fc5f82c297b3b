#include "coinfer/score/score.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "coinfer/cpu.hpp"
#include "coinfer/score/task.hpp"

namespace coinfer {
namespace {

using scoring::Input;
using scoring::Task;

constexpr std::size_t block = 16;                           // rows; a thread's share is a multiple
constexpr std::size_t copied_bytes = std::size_t{1} << 16;  // of a table that must be copied first, at a time
constexpr std::size_t streamed_bytes = std::size_t{16} << 20;
constexpr std::size_t bytes_per_thread = std::size_t{8}
                                         << 20;  // about a millisecond of work; starting a thread costs 70 us

scoring::Kernel* kernel() {
  switch (implementation()) {
#if defined(__x86_64__)
    case Isa::avx512: return scoring::score_avx512;
    case Isa::avx2: return scoring::score_avx2;
#endif
    default: return scoring::score_baseline;
  }
}

template <class T>
void advance(T*& p, std::size_t rows) {
  if (p != nullptr) p += rows;
}

Task advanced(Task task, std::size_t rows) {
  advance(task.label, rows);
  advance(task.max_prob, rows);
  advance(task.margin, rows);
  advance(task.entropy, rows);
  advance(task.energy, rows);
  advance(task.logit_margin, rows);
  advance(task.gini, rows);
  task.data += static_cast<std::ptrdiff_t>(rows) * task.stride;
  return task;
}

/// Whether all wanted results can be stored past the caches: there are many, and they share an offset to a cache line.
/// `head` becomes the number of rows before the first such line.
bool streams(const Task& task, std::size_t& head) {
  std::size_t wanted = 0, offset = 0;
  bool same = true;
  const auto look = [&](const void* p) {
    if (p == nullptr) return;
    const std::size_t here = reinterpret_cast<std::uintptr_t>(p) % 64;
    same = same && (wanted == 0 || here == offset);
    offset = here;
    ++wanted;
  };
  look(task.label);
  for (const float* p : {task.max_prob, task.margin, task.entropy, task.energy, task.logit_margin, task.gini}) look(p);
  head = (64 - offset) % 64 / sizeof(float);
  return same && task.rows * wanted * sizeof(float) >= streamed_bytes;
}

std::size_t score_task(const Task& task) {  // copied only where there is much to do
  scoring::Kernel* const run = kernel();
  std::size_t head = 0, unanswered = 0;
  if (!streams(task, head)) return run(task);
  Task rest = task;
  if (head != 0) {
    rest.rows = head;
    unanswered = run(rest);
    rest = advanced(task, head);
    rest.rows = task.rows - head;
  }
  rest.stream = true;
  return unanswered + run(rest);
}

template <class T>
void copy_rows(const T* data, std::ptrdiff_t row_stride, std::ptrdiff_t class_stride, std::size_t rows,
               std::size_t classes, float* out) {
  const auto count = static_cast<std::ptrdiff_t>(classes);
  for (std::size_t i = 0; i < rows; ++i, data += row_stride, out += count) {
    if (class_stride == 1) {
      for (std::ptrdiff_t j = 0; j < count; ++j) out[j] = static_cast<float>(data[j]);
    } else {
      for (std::ptrdiff_t j = 0; j < count; ++j) out[j] = static_cast<float>(data[j * class_stride]);
    }
  }
}

template <class T>
std::size_t score_copied(const Vectors& vectors, std::size_t begin, std::size_t end, Task task) {
  const std::size_t fits = copied_bytes / sizeof(float) / vectors.classes / block * block;
  const std::size_t step = std::min(std::max(fits, block), end - begin);
  std::vector<float> copy(step * vectors.classes);
  std::size_t unanswered = 0;
  task.stride = static_cast<std::ptrdiff_t>(vectors.classes);
  for (std::size_t row = begin; row < end; row += step) {
    const std::size_t n = std::min(step, end - row);
    copy_rows(static_cast<const T*>(vectors.data) + static_cast<std::ptrdiff_t>(row) * vectors.row_stride,
              vectors.row_stride, vectors.class_stride, n, vectors.classes, copy.data());
    Task part = task;
    part.data = copy.data();
    part.rows = n;
    unanswered += score_task(part);
    task.data = copy.data();
    task = advanced(task, n);
  }
  return unanswered;
}

/// The rows from `begin` to `end`, with results from the first of them on in `task`.
std::size_t score_rows(const Vectors& vectors, Task& task, std::size_t begin, std::size_t end) {
  if (vectors.float64) return score_copied<double>(vectors, begin, end, task);
  if (vectors.class_stride != 1 && vectors.classes > 1) return score_copied<float>(vectors, begin, end, task);
  task.stride = vectors.row_stride;
  task.data = static_cast<const float*>(vectors.data) + static_cast<std::ptrdiff_t>(begin) * vectors.row_stride;
  task.rows = end - begin;
  return score_task(task);
}

std::size_t score_range(const Vectors& vectors, const Task& all, std::size_t begin, std::size_t end) {
  Task task = advanced(all, begin);  // its stride is 0 yet
  return score_rows(vectors, task, begin, end);
}

}  // namespace

std::size_t score(const Vectors& vectors, const Scores& out, unsigned threads) {
  assert(vectors.classes > 0 && vectors.temperature > 0.0F);
  if (vectors.rows == 0) return 0;
  const double temperature = vectors.temperature;
  Task task{};
  task.classes = vectors.classes;
  task.input = !vectors.probs ? Input::logits : vectors.temperature == 1.0F ? Input::probs : Input::tempered;
  task.temperature = vectors.temperature;
  constexpr double ln2 = 0.6931471805599453;
  task.scale = static_cast<float>((vectors.probs ? 1.0 : 1.4426950408889634) / temperature);
  task.least = static_cast<float>(-125.0 * (vectors.probs ? 1.0 : ln2) * temperature);
  task.energy_scale = static_cast<float>(temperature * ln2);
  task.label = out.label;
  const auto wanted = [&](Kind kind) { return out.kind[static_cast<std::size_t>(kind)]; };
  task.max_prob = wanted(Kind::max_prob);
  task.margin = wanted(Kind::margin);
  task.entropy = wanted(Kind::entropy);
  if (task.entropy != nullptr && vectors.classes > 1) {
    task.inverse_entropy = static_cast<float>(1.0 / std::log2(static_cast<double>(vectors.classes)));
  }
  task.energy = wanted(Kind::energy);
  task.logit_margin = wanted(Kind::logit_margin);
  task.gini = wanted(Kind::gini);

  const std::size_t bytes = vectors.rows * vectors.classes * (vectors.float64 ? sizeof(double) : sizeof(float));
  const std::size_t useful = std::min<std::size_t>(std::max(1U, threads), bytes / bytes_per_thread + 1);
  if (useful == 1) return score_rows(vectors, task, 0, vectors.rows);
  const std::size_t share = (vectors.rows / useful + block) / block * block;
  std::vector<std::size_t> unanswered(useful);
  {
    std::vector<std::jthread> workers;
    for (std::size_t i = 1; i < useful; ++i) {
      const std::size_t begin = std::min(vectors.rows, i * share), end = std::min(vectors.rows, begin + share);
      if (begin < end)
        workers.emplace_back([&, i, begin, end] { unanswered[i] = score_range(vectors, task, begin, end); });
    }
    unanswered[0] = score_range(vectors, task, 0, std::min(vectors.rows, share));
  }
  std::size_t sum = 0;
  for (const std::size_t n : unanswered) sum += n;
  return sum;
}

bool scoring::score_special(const Task& task, std::size_t row) noexcept {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const float* z = task.data + static_cast<std::ptrdiff_t>(row) * task.stride;
  const bool logits = task.input == Input::logits;
  float max = logits ? -inf : 0.0F;
  std::size_t ties = 0, label = 0;
  bool answered = true;
  for (std::size_t j = 0; j < task.classes; ++j) {
    answered = answered && (logits ? !std::isnan(z[j]) : z[j] >= 0.0F && z[j] < inf);
    if (z[j] > max || j == 0) {
      max = z[j];
      label = j;
      ties = 0;
    }
    ties += static_cast<std::size_t>(z[j] == max);
  }
  answered = answered && (logits || max > 0.0F);
  const auto put = [row](auto* out, auto value) {
    if (out != nullptr) out[row] = value;
  };
  const bool alone = ties == 1;
  put(task.label, answered ? static_cast<Label>(label) : no_answer);
  put(task.max_prob, answered ? 1.0F / static_cast<float>(ties) : nan);
  put(task.margin, answered ? (alone ? 1.0F : 0.0F) : nan);
  const double spread = alone ? 0.0 : std::log(static_cast<double>(ties)) / std::log(static_cast<double>(task.classes));
  put(task.entropy, answered ? static_cast<float>(1.0 - spread) : nan);
  put(task.energy, answered ? max : nan);
  put(task.logit_margin, answered ? (alone ? inf : 0.0F) : nan);
  put(task.gini, answered ? 1.0F / static_cast<float>(ties) : nan);
  return !answered;
}

}  // namespace coinfer
