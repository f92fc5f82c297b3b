#include "coinfer/score/score.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "coinfer/cpu.hpp"

using namespace coinfer;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

struct Results {
  std::vector<Label> label;
  std::vector<std::vector<float>> kind;
  std::size_t unanswered = 0;
};

Results score_all(const Vectors& vectors, unsigned threads = 1) {
  Results r;
  r.label.resize(vectors.rows);
  r.kind.assign(kind_count, std::vector<float>(vectors.rows));
  Scores out{.label = r.label.data()};
  for (std::size_t k = 0; k < kind_count; ++k) out.kind[k] = r.kind[k].data();
  r.unanswered = score(vectors, out, threads);
  return r;
}

bool same_bits(const Results& a, const Results& b) {
  bool same = a.label == b.label && a.unanswered == b.unanswered;
  for (std::size_t k = 0; same && k < kind_count; ++k) {
    same = a.kind[k].empty() || std::memcmp(a.kind[k].data(), b.kind[k].data(), a.kind[k].size() * sizeof(float)) == 0;
  }
  return same;
}

std::vector<float> random_logits(std::size_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0F, 4.0F);
  std::uniform_int_distribution<int> rare(0, 999);
  std::vector<float> z(n);
  for (float& x : z) {
    const int which = rare(engine);
    x = which == 0 ? not_a_number : which == 1 ? inf : which < 100 ? -inf : which < 200 ? 1.0F : normal(engine);
  }
  return z;
}

struct Forced {
  explicit Forced(Isa isa) { force(name(isa)); }
  ~Forced() { force("auto"); }
  Forced(const Forced&) = delete;
  Forced& operator=(const Forced&) = delete;
};

float value(const Results& r, Kind kind, std::size_t row = 0) { return r.kind[static_cast<std::size_t>(kind)][row]; }

}  // namespace

TEST("every instruction set gives the same bits") {
  for (const std::size_t classes : {1, 2, 3, 4, 5, 10, 15, 16, 17, 31, 33, 64, 100, 128, 129, 600, 1000, 2000}) {
    const std::size_t rows = classes < 200 ? 133 : 19;
    const std::vector<float> z = random_logits(rows * classes, static_cast<unsigned>(classes));
    for (const float temperature : {1.0F, 0.05F, 20.0F}) {
      const Vectors vectors{.data = z.data(),
                            .rows = rows,
                            .classes = classes,
                            .row_stride = static_cast<std::ptrdiff_t>(classes),
                            .temperature = temperature};
      Results expected;
      for (const Isa isa : implementations()) {
        const Forced forced(isa);
        const Results found = score_all(vectors);
        if (isa == Isa::baseline) expected = found;
        CHECK(same_bits(found, expected));
      }
    }
  }
}

TEST("threads, parts and copies change nothing") {
  const std::size_t classes = 10, rows = 700001;
  const std::vector<float> z = random_logits(rows * classes, 7);
  Vectors vectors{.data = z.data(), .rows = rows, .classes = classes, .row_stride = classes};
  const Results whole = score_all(vectors);
  CHECK(whole.unanswered > 0);
  CHECK(same_bits(score_all(vectors, 3), whole));

  std::vector<double> turned(rows * classes);  // float64, stored column by column, rows backwards
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < classes; ++j) turned[j * rows + rows - 1 - i] = z[i * classes + j];
  }
  Vectors other{.data = turned.data() + rows - 1,
                .float64 = true,
                .rows = rows,
                .classes = classes,
                .row_stride = -1,
                .class_stride = static_cast<std::ptrdiff_t>(rows)};
  CHECK(same_bits(score_all(other, 2), whole));
  CHECK(same_bits(score_all(other), whole));
}

TEST("a subset of results has the bits of the full set") {
  const std::size_t rows = 50;
  for (const std::size_t classes : {7, 40}) {
    const std::vector<float> z = random_logits(rows * classes, 3);
    const Vectors vectors{
        .data = z.data(), .rows = rows, .classes = classes, .row_stride = static_cast<std::ptrdiff_t>(classes)};
    const Results all = score_all(vectors);
    for (std::size_t k = 0; k < kind_count; ++k) {
      std::vector<float> alone(rows);
      Scores out;
      out.kind[k] = alone.data();
      CHECK_EQ(score(vectors, out), all.unanswered);
      CHECK(std::memcmp(alone.data(), all.kind[k].data(), rows * sizeof(float)) == 0);
    }
    std::vector<Label> label(rows);
    CHECK_EQ(score(vectors, Scores{.label = label.data()}), all.unanswered);
    CHECK(label == all.label);
  }
}

TEST("special rows follow the contract") {
  const std::vector<float> z{inf, 1.0F, inf, -inf, -inf, -inf, 0.0F, not_a_number, 1.0F, -inf, 3.0F, 3.0F};
  const Results r = score_all({.data = z.data(), .rows = 4, .classes = 3, .row_stride = 3});
  CHECK_EQ(r.unanswered, std::size_t{1});
  CHECK_EQ(r.label[0], 0);
  CHECK_EQ(value(r, Kind::max_prob), 0.5F);
  CHECK_EQ(value(r, Kind::margin), 0.0F);
  CHECK_EQ(value(r, Kind::energy), inf);
  CHECK_EQ(value(r, Kind::logit_margin), 0.0F);
  CHECK_EQ(r.label[1], 0);
  CHECK_EQ(value(r, Kind::max_prob, 1), 1.0F / 3.0F);
  CHECK_EQ(value(r, Kind::entropy, 1), 0.0F);
  CHECK_EQ(value(r, Kind::energy, 1), -inf);
  CHECK_EQ(r.label[2], no_answer);
  for (std::size_t k = 0; k < kind_count; ++k) CHECK(std::isnan(r.kind[k][2]));
  CHECK_EQ(r.label[3], 1);
  CHECK_EQ(value(r, Kind::margin, 3), 0.0F);
  CHECK_EQ(value(r, Kind::max_prob, 3), 0.5F);
}

TEST("one class is certain, no rows are fine") {
  const float z = 2.0F;
  const Results r = score_all({.data = &z, .rows = 1, .classes = 1, .row_stride = 1});
  CHECK_EQ(r.label[0], 0);
  CHECK_EQ(value(r, Kind::max_prob), 1.0F);
  CHECK_EQ(value(r, Kind::margin), 1.0F);
  CHECK_EQ(value(r, Kind::entropy), 1.0F);
  CHECK_EQ(value(r, Kind::energy), 2.0F);
  CHECK_EQ(value(r, Kind::logit_margin), inf);
  CHECK_EQ(value(r, Kind::gini), 1.0F);
  CHECK_EQ(score({.data = nullptr, .rows = 0, .classes = 5}, {}), std::size_t{0});
}

int main() { return check::run_all(); }
