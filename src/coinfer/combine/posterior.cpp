#include "coinfer/combine/posterior.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "coinfer/combine/lead.hpp"

namespace coinfer {
namespace {

constexpr std::size_t most_voters = 255;
constexpr std::size_t most_states = std::size_t{1} << 18;
constexpr double most_work = 4e9;  // multiplications: a few seconds

/// A polynomial, cut off behind a degree that the user knows.
using Polynomial = std::vector<double>;

Polynomial times(const Polynomial& a, const Polynomial& b, std::size_t degree) {
  if (a.empty() || b.empty()) return {};
  Polynomial product(std::min(a.size() + b.size() - 1, degree + 1), 0.0);
  for (std::size_t i = 0; i < a.size() && i <= degree; ++i) {
    const std::size_t count = std::min(b.size(), product.size() - i);
    for (std::size_t j = 0; j < count; ++j) product[i + j] += a[i] * b[j];
  }
  return product;
}

Polynomial power(Polynomial base, std::size_t exponent, std::size_t degree) {
  Polynomial result{1.0};
  for (; exponent != 0; exponent >>= 1U) {
    if ((exponent & 1U) != 0) result = times(result, base, degree);
    if (exponent > 1) base = times(base, base, degree);
  }
  return result;
}

double choose(std::size_t n, std::size_t k) {
  double product = 1.0;
  for (std::size_t i = 1; i <= k; ++i) product = product * static_cast<double>(n - k + i) / static_cast<double>(i);
  return product;
}

std::uint64_t scattered(std::uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31U);
}

}  // namespace

/// Walks the partitions, largest part first. A branch ends where the lead exceeds whatever is left: adding to the
/// others can only take from what is left.
class Posterior::Builder {
 public:
  explicit Builder(Posterior& to)
      : to_(to), voters_(to.voters_), classes_(to.classes_), most_parts_(std::min(voters_, classes_)) {}

  void count() {
    counting_ = true;
    roots();
    if (to_.states_ > most_states || work_ > most_work) {
      throw std::invalid_argument("the posterior of " + std::to_string(voters_) + " votes over " +
                                  std::to_string(classes_) +
                                  " classes needs too large a table; about 40 voters are the most, and 200 for two "
                                  "classes");
    }
  }

  void build() {
    counting_ = false;
    std::size_t capacity = 16;
    while (capacity < 2 * to_.states_) capacity *= 2;
    to_.slots_.assign(capacity, Slot{});
    to_.mark_.resize(voters_ + 1);
    for (std::size_t n = 1; n <= voters_; ++n) to_.mark_[n] = scattered(n);
    for (std::size_t n = 0; n <= voters_; ++n) {
      Polynomial& votes = ways_.emplace_back();
      for (std::size_t x = 0; x <= voters_ - n; ++x) votes.push_back(choose(x + n, x));
    }
    roots();
  }

 private:
  void roots() {
    for (std::size_t top = 1; top <= voters_; ++top) {
      top_ = top;
      const std::size_t left = voters_ - top;
      if (!counting_) {
        zeros_.clear();
        for (std::size_t x = 0; x <= left; ++x) {  // Powers of the polynomial of a class without votes.
          const Polynomial none(std::min(top + x, left + 1), 1.0);
          const std::size_t fewest = classes_ - std::min(classes_, most_parts_);
          auto& powers = zeros_.emplace_back();
          powers.push_back(power(none, fewest, left));
          while (powers.size() < most_parts_) powers.push_back(times(powers.back(), none, left));
        }
      }
      std::vector<Polynomial> products(counting_ ? 0 : left + 1, Polynomial{1.0});
      visit(top, 0, 1, counting_ ? 0 : to_.mark_[top], products);
    }
  }

  /// `n` votes in `parts` classes, of which the second-largest count is `second`; products[x]: of all but the top class
  /// if that gets x more.
  void visit(std::size_t n, std::size_t second, std::size_t parts, std::uint64_t key,
             const std::vector<Polynomial>& products, std::size_t last = 0) {
    const std::size_t left = voters_ - n, ahead = top_ - second;
    if (ahead > left) return;
    if (counting_) {
      ++to_.states_;
      const auto length = static_cast<double>(left + 1);
      work_ += length * length * length / 3.0;
      if (to_.states_ > most_states || work_ > most_work) return;
    } else {
      keep(n, ahead, parts, key, products);
    }
    if (parts == most_parts_) return;
    const std::size_t most = std::min(last == 0 ? top_ : last, left);
    for (std::size_t part = 1; part <= most; ++part) {
      const std::size_t still = left - part;
      std::vector<Polynomial> longer(counting_ ? 0 : still + 1);
      for (std::size_t x = 0; x < longer.size(); ++x) {
        const std::size_t below = std::min(top_ + x - part, still + 1);
        const Polynomial votes(ways_[part].begin(), ways_[part].begin() + static_cast<std::ptrdiff_t>(below));
        longer[x] = times(products[x], votes, still - x);
      }
      visit(n + part, std::max(second, part), parts + 1, counting_ ? 0 : key + to_.mark_[part], longer, part);
    }
  }

  void keep(std::size_t n, std::size_t ahead, std::size_t parts, std::uint64_t key,
            const std::vector<Polynomial>& products) {
    const std::size_t left = voters_ - n;
    std::vector<double> ways(left + 1, 0.0);  // by votes to come
    for (std::size_t x = 0; x <= left; ++x) {
      const Polynomial others = times(products[x], zeros_[x][most_parts_ - parts], left - x);
      for (std::size_t d = 0; d < others.size(); ++d) ways[x + d] += ways_[top_][x] * others[d];
    }
    const std::size_t mask = to_.slots_.size() - 1;
    std::size_t at = key & mask;
    for (; to_.slots_[at].taken; at = (at + 1) & mask) {
      if (to_.slots_[at].key == key) throw std::logic_error("two states of a vote have one key");
    }
    to_.slots_[at] = {key, static_cast<std::uint32_t>(to_.table_.size()), true};
    const float below_one = 1.0F - std::numeric_limits<float>::epsilon() / 2.0F;
    for (std::size_t r = ahead; r <= left; ++r) {
      to_.table_.push_back(std::min(below_one, rounded_down(ways[r] / choose(r + n + classes_ - 1, r))));
    }
  }

  Posterior& to_;
  std::size_t voters_, classes_, most_parts_;
  bool counting_ = false;
  double work_ = 0.0;
  std::size_t top_ = 0;
  std::vector<Polynomial> ways_;                // [n][x]: C(x + n, x)
  std::vector<std::vector<Polynomial>> zeros_;  // [x][classes without votes, from the fewest possible]
};

Posterior::Posterior(std::size_t voters, std::size_t classes) : voters_(voters), classes_(classes) {
  if (voters == 0 || voters > most_voters) throw std::invalid_argument("a vote has 1 to 255 voters");
  if (classes == 0) throw std::invalid_argument("a vote needs at least one class");
  Builder(*this).count();
  Builder(*this).build();
}

const Posterior::Slot* Posterior::find(std::uint64_t key) const noexcept {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = key & mask; slots_[at].taken; at = (at + 1) & mask) {
    if (slots_[at].key == key) return &slots_[at];
  }
  return nullptr;
}

float Posterior::operator()(std::span<const double> counts, Label label, std::size_t to_come) const noexcept {
  const double ahead = lead(counts, label);
  if (classes_ == 1 || ahead > static_cast<double>(to_come)) return 1.0F;
  std::uint64_t key = 0;
  std::size_t total = 0;
  for (const double count : counts) {
    const auto n = static_cast<std::size_t>(count);
    total += n;
    if (total > voters_) return 0.0F;
    key += mark_[n];
  }
  if (total + to_come > voters_) return 0.0F;
  const Slot* slot = find(key);
  return slot == nullptr ? 0.0F : table_[slot->first + to_come - static_cast<std::size_t>(ahead)];
}

Probable::Probable(std::shared_ptr<const Posterior> posterior, std::vector<std::size_t> to_come)
    : posterior_(std::move(posterior)), to_come_(std::move(to_come)), pool_(How::vote, posterior_->classes()) {}

void Probable::add(float* state, const Member& member, const Outputs& block, std::uint8_t* answered) const {
  if (member.weight != 1.0) throw std::invalid_argument("the posterior of a vote needs members of equal weight 1");
  pool_.add(state, member, block, answered);
}

void Probable::answer(const float* state, std::size_t rows, std::size_t stage, Label* labels, float* scores) const {
  pool_.results(state, rows, {.label = labels});
  const Pool::Sums sums = pool_.sums(state, rows);
  for (std::size_t row = 0; row < rows; ++row) {
    scores[row] = labels[row] < 0 ? std::numeric_limits<float>::quiet_NaN()
                                  : (*posterior_)(sums[row], labels[row], to_come_.at(stage));
  }
}

}  // namespace coinfer
