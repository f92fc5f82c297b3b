// A timetable: time is cut into rounds, and messages wait for the round in which they come to something. Nothing that
// is sent while a round is worked through may arrive in it, so that a round is known whole and needs no list of events.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace coinfer {

/// A request comes to where `step` leads, or is decided about where it has led; or a station (`slot`) goes on with
/// those who wait.
struct Message {
  std::int64_t time;
  std::uint32_t slot;
  std::uint32_t step;
};

/// Messages in a row: a vector that does not write what it makes room for.
class Pile {
 public:
  bool full() const noexcept { return end_ == limit_; }
  std::size_t size() const noexcept { return static_cast<std::size_t>(end_ - first_.get()); }
  std::span<Message> all() noexcept { return {first_.get(), end_}; }
  std::size_t room() const noexcept { return static_cast<std::size_t>(limit_ - end_); }
  /// There must be room.
  void push(const Message& message) noexcept {
    // Part by part: what was just written so, a processor cannot read as a whole before it has reached the cache.
    end_->time = message.time;
    end_->slot = message.slot;
    end_->step = message.step;
    ++end_;
  }
  Message& next() noexcept { return *end_++; }
  void resize(std::size_t count) {
    if (first_.get() + count > limit_) make_room(count - size());
    end_ = first_.get() + count;
  }
  void make_room(std::size_t more) {
    const std::size_t capacity = std::max(2 * size(), size() + more);
    auto larger = std::make_unique_for_overwrite<Message[]>(capacity);  // NOLINT(modernize-avoid-c-arrays)
    end_ = std::copy(first_.get(), end_, larger.get());
    first_ = std::move(larger);
    limit_ = first_.get() + capacity;
  }
  void swap(Pile& other) noexcept {
    first_.swap(other.first_);
    std::swap(end_, other.end_);
    std::swap(limit_, other.limit_);
  }

 private:
  std::unique_ptr<Message[]> first_;  // NOLINT(modernize-avoid-c-arrays)
  Message* end_ = nullptr;
  Message* limit_ = nullptr;
};

class Timetable {
 public:
  enum Kind : std::uint8_t { arrival, decision, wake, kinds };

  int shift() const noexcept { return shift_; }
  std::int64_t round() const noexcept { return round_; }
  std::int64_t starts_at() const noexcept { return round_ << shift_; }
  std::int64_t ends_at() const noexcept { return round_ == INT64_MAX >> shift_ ? INT64_MAX : (round_ + 1) << shift_; }
  bool empty() const noexcept { return near_ == 0 && later_.empty(); }

  /// From now on a round takes 2^shift ns; `now` is in the current one, and no message is earlier.
  void cut(int shift, std::int64_t now) {
    std::vector<std::pair<Kind, Message>> all;
    for (std::size_t at = 0; at < piles_.size(); ++at) {
      if (piles_[at].size() == 0) continue;
      for (const Message& message : piles_[at].all()) all.emplace_back(static_cast<Kind>(at % kinds), message);
      piles_[at].resize(0);
      put_back(piles_[at]);
    }
    for (const auto& [year, messages] : later_) all.insert(all.end(), messages.begin(), messages.end());
    later_.clear();
    busy_.fill(0);
    near_ = 0;
    shift_ = shift;
    round_ = now >> shift;
    for (const auto& [kind, message] : all) post(kind, message);
  }

  [[gnu::always_inline]] void post(Kind kind, const Message& message) {
    const std::int64_t round = message.time >> shift_;
    if (round - round_ >= rounds) return postpone(kind, message);
    Pile& pile = piles_[static_cast<std::size_t>(round) % rounds * kinds + kind];
    if (pile.full()) enlarge(pile, static_cast<std::size_t>(round) % rounds);
    pile.push(message);
    ++near_;
  }

  /// `f` for every message.
  template <class F>
  void each(const F& f) {
    for (Pile& pile : piles_) {
      const auto kind = static_cast<Kind>((&pile - piles_.data()) % kinds);
      for (const Message& message : pile.all()) f(kind, message);
    }
    for (const auto& [year, messages] : later_) {
      for (const auto& [kind, message] : messages) f(kind, message);
    }
  }

  /// Hand over the messages of this round, for an empty pile.
  void take(Kind kind, Pile& into) noexcept {
    Pile& pile = piles_[static_cast<std::size_t>(round_) % rounds * kinds + kind];
    near_ -= pile.size();
    into.swap(pile);
  }
  void put_back(Pile& pile) { idle_.emplace_back().swap(pile); }

  /// On to the next round that has a message, or to `last`, if that is earlier. All of this one has been taken.
  void advance(std::int64_t last) {
    const std::size_t here = static_cast<std::size_t>(round_) % rounds;
    busy_[here / word] &= ~(std::uint64_t{1} << (here % word));
    while (round_ < last) {
      const std::size_t at = static_cast<std::size_t>(round_ + 1) % rounds;
      if (near_ == 0 || at == 0) {
        const std::int64_t far = later_.empty() ? INT64_MAX : later_.begin()->first * rounds;
        round_ = std::min({last, far, near_ == 0 ? INT64_MAX : round_ + 1});
        if (round_ == far && !later_.empty()) begin_year();
        if (static_cast<std::size_t>(round_) % rounds == 0 && (busy_[0] & 1U) != 0) return;
        continue;
      }
      const std::uint64_t rest = busy_[at / word] >> (at % word);
      const std::size_t skipped = rest != 0 ? static_cast<std::size_t>(std::countr_zero(rest)) : word - at % word - 1;
      round_ = std::min(last, round_ + static_cast<std::int64_t>(skipped) + 1);
      if (rest != 0) return;
    }
  }

 private:
  static constexpr std::int64_t rounds = 1024;  // of a year
  static constexpr std::size_t word = 64;

  int shift_ = 0;
  std::int64_t round_ = 0;
  std::size_t near_ = 0;                                                       // messages in piles
  std::vector<Pile> piles_ = std::vector<Pile>(rounds * kinds);                // [round of the year][kind]
  std::array<std::uint64_t, static_cast<std::size_t>(rounds) / word> busy_{};  // [round of the year]: a bit
  std::map<std::int64_t, std::vector<std::pair<Kind, Message>>> later_;        // [year]
  std::vector<Pile> idle_;

  [[gnu::noinline]] void enlarge(Pile& pile, std::size_t round) {
    busy_[round / word] |= std::uint64_t{1} << (round % word);
    if (pile.size() == 0 && !idle_.empty()) {
      pile.swap(idle_.back());
      idle_.pop_back();
    }
    if (pile.full()) pile.make_room(64);
  }

  [[gnu::noinline]] void postpone(Kind kind, const Message& message) {
    later_[(message.time >> shift_) / rounds].emplace_back(kind, message);
  }

  void begin_year() {
    const std::vector<std::pair<Kind, Message>> messages = std::move(later_.begin()->second);
    later_.erase(later_.begin());
    for (const auto& [kind, message] : messages) post(kind, message);
  }
};

}  // namespace coinfer
