// The list of what is still to happen, ordered by (time, order). And a ring, for what waits in line.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace coinfer {

/// Who an event is about: a request's slot (or a batch), a member of the stage it is at, and where on its way.
struct Token {
  std::uint32_t slot = 0;
  std::uint16_t member = 0;
  std::uint8_t phase = 0;
  std::uint8_t hop = 0;
};

enum class Happening : std::uint8_t { completion, decision, arrival, timer };

/// `order` packs kind, request, place and member, so that two words decide.
struct Event {
  std::int64_t time = 0;
  std::uint64_t order = 0;
  Token token;
};

inline constexpr int member_bits = 8;
inline constexpr int place_bits = 17;
inline constexpr int request_bits = 37;

constexpr std::uint64_t order_of(Happening kind, std::uint64_t request, std::uint32_t place,
                                 std::uint16_t member = 0) noexcept {
  return (static_cast<std::uint64_t>(kind) << (request_bits + place_bits + member_bits)) |
         (request << (place_bits + member_bits)) | (static_cast<std::uint64_t>(place) << member_bits) | member;
}
constexpr Happening kind_of(std::uint64_t order) noexcept {
  return static_cast<Happening>(order >> (request_bits + place_bits + member_bits));
}
constexpr std::uint32_t place_of(std::uint64_t order) noexcept {
  return static_cast<std::uint32_t>(order >> member_bits) & ((1U << place_bits) - 1U);
}

/// Time and order in one number, so that comparing takes no branch. No event is before time 0.
__extension__ using EventKey = unsigned __int128;
constexpr EventKey key_of(const Event& event) noexcept {
  return (static_cast<EventKey>(event.time) << 64) | event.order;
}
constexpr bool before(const Event& a, const Event& b) noexcept { return key_of(a) < key_of(b); }

/// A calendar queue (Brown, "Calendar queues: a fast O(1) priority queue implementation", CACM 31, 1988). Time is cut
/// into days; a day's events hang in a list, days that are a year apart share one, and the list of today is in order.
/// A day is so long that it has an event or two: looked at again whenever finding the next one costs too much.
class Agenda {
 public:
  bool empty() const noexcept { return size_ == 0; }

  const Event& top() {
    if (today_.empty()) advance();
    return today_.back();
  }

  /// Whether something happens before.
  bool precedes(std::int64_t time, std::uint64_t order) {
    if (empty()) return false;
    const Event& first = top();
    return first.time < time || (first.time == time && first.order < order);
  }

  void push(const Event& event) {
    const std::int64_t day = event.time >> shift_;
    if (day < day_) {
      postpone();
      day_ = day;
    }
    ++size_;
    if (day == day_) return insert(event);
    hang(event, day);
    if (size_ > 2 * lists_.size()) rearrange();
  }

  /// What top() gave.
  void pop() noexcept {
    today_.pop_back();
    --size_;
    ++popped_;
  }

 private:
  static constexpr std::uint32_t none = UINT32_MAX;
  static constexpr std::size_t word = 64;
  struct Note {
    Event event;
    std::uint32_t next;
  };

  std::vector<Event> today_;  // the next one last
  std::int64_t day_ = 0;
  int shift_ = 16;  // a day has 2^shift_ ns
  std::size_t size_ = 0;
  std::vector<Note> notes_;
  std::uint32_t idle_ = none;                                                 // notes
  std::vector<std::uint32_t> lists_ = std::vector<std::uint32_t>(256, none);  // [day of the year]
  std::vector<std::uint64_t> busy_ = std::vector<std::uint64_t>(256 / word);  // [day of the year]: a bit
  std::size_t popped_ = 0;                                                    // since `rearrange`; so too:
  std::size_t looked_at_ = 0;                                                 // events, and words of days

  /// Put an event of today where it belongs.
  void insert(const Event& event) {
    std::size_t at = today_.size();
    today_.push_back(event);
    for (; at > 0 && before(today_[at - 1], event); --at) today_[at] = today_[at - 1];
    today_[at] = event;
    looked_at_ += today_.size() - at;
  }

  void hang(const Event& event, std::int64_t day) {
    std::uint32_t at = idle_;
    if (at == none) {
      at = static_cast<std::uint32_t>(notes_.size());
      notes_.emplace_back();
    } else {
      idle_ = notes_[at].next;
    }
    const std::size_t list = static_cast<std::size_t>(day) & (lists_.size() - 1);
    notes_[at] = {event, lists_[list]};
    lists_[list] = at;
    busy_[list / word] |= std::uint64_t{1} << (list % word);
  }

  /// What is left of today comes after an earlier day.
  void postpone() {
    for (const Event& event : today_) hang(event, day_);
    looked_at_ += today_.size();
    today_.clear();
  }

  /// On to the next day that has an event.
  void advance() {
    if (looked_at_ > 8 * popped_ + 4 * (size_ + lists_.size())) {
      rearrange();
      if (!today_.empty()) return;
    }
    const std::size_t days = lists_.size();
    for (std::size_t passed = 1; passed <= days;) {
      const std::int64_t day = day_ + static_cast<std::int64_t>(passed);
      const std::size_t list = static_cast<std::size_t>(day) & (days - 1);
      const std::uint64_t rest = busy_[list / word] >> (list % word);
      ++looked_at_;
      if (rest == 0) {
        passed += word - list % word;
        continue;
      }
      const auto skipped = static_cast<std::size_t>(std::countr_zero(rest));
      if (passed + skipped > days) break;
      passed += skipped + 1;
      if (take(list + skipped, day + static_cast<std::int64_t>(skipped))) return;
    }
    // Nothing for a year.
    std::int64_t next = INT64_MAX;
    for (const std::uint32_t head : lists_) {
      for (std::uint32_t at = head; at != none; at = notes_[at].next) next = std::min(next, notes_[at].event.time);
    }
    looked_at_ += size_ + days;
    next >>= shift_;
    take(static_cast<std::size_t>(next) & (days - 1), next);
  }

  /// Make it `day`, if a list has events of it.
  bool take(std::size_t list, std::int64_t day) {
    std::uint32_t* link = &lists_[list];
    while (*link != none) {
      const std::uint32_t at = *link;
      ++looked_at_;
      Note& note = notes_[at];
      if (note.event.time >> shift_ != day) {
        link = &note.next;
        continue;
      }
      *link = note.next;
      today_.push_back(note.event);
      note.next = idle_;
      idle_ = at;
    }
    if (lists_[list] == none) busy_[list / word] &= ~(std::uint64_t{1} << (list % word));
    if (today_.empty()) return false;
    day_ = day;
    const auto later = [](const Event& a, const Event& b) { return before(b, a); };
    if (today_.size() > 16) {
      std::sort(today_.begin(), today_.end(), later);
      return true;
    }
    for (std::size_t i = 1; i < today_.size(); ++i) {
      const Event event = today_[i];
      std::size_t to = i;
      for (; to > 0 && before(today_[to - 1], event); --to) today_[to] = today_[to - 1];
      today_[to] = event;
    }
    return true;
  }

  /// Choose anew how long a day is, by the nearer half of what is still to happen, and how many make a year.
  void rearrange() {
    std::vector<Event> all(today_.begin(), today_.end());
    for (const std::uint32_t head : lists_) {
      for (std::uint32_t at = head; at != none; at = notes_[at].next) all.push_back(notes_[at].event);
    }
    notes_.clear();
    idle_ = none;
    today_.clear();
    std::size_t days = lists_.size();
    while (days < all.size()) days *= 2;
    lists_.assign(days, none);
    busy_.assign(days / word, 0);
    popped_ = looked_at_ = 0;
    if (all.empty()) return;
    const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    std::nth_element(all.begin(), middle, all.end(), before);
    const std::int64_t first = std::min_element(all.begin(), middle + 1, before)->time;
    const auto gap = static_cast<std::uint64_t>(middle->time - first) / (all.size() / 2 + 1);
    shift_ = static_cast<int>(std::bit_width(gap));
    day_ = first >> shift_;
    for (const Event& event : all) {
      const std::int64_t day = event.time >> shift_;
      if (day == day_) {
        insert(event);
      } else {
        hang(event, day);
      }
    }
  }
};

/// First in, first out; grows by doubling and never shrinks.
template <class T>
class Ring {
 public:
  bool empty() const noexcept { return head_ == tail_; }
  std::size_t size() const noexcept { return tail_ - head_; }
  T& front() noexcept { return slots_[head_ & mask()]; }
  T& operator[](std::size_t at) noexcept { return slots_[(head_ + at) & mask()]; }
  const T& operator[](std::size_t at) const noexcept { return slots_[(head_ + at) & mask()]; }
  void pop() noexcept { ++head_; }
  void push(const T& value) {
    if (size() == slots_.size()) grow();
    slots_[tail_++ & mask()] = value;
  }
  void erase(std::size_t at) noexcept {
    for (; at > 0; --at) (*this)[at] = (*this)[at - 1];
    ++head_;
  }

 private:
  std::vector<T> slots_;
  std::size_t head_ = 0;
  std::size_t tail_ = 0;

  std::size_t mask() const noexcept { return slots_.size() - 1; }
  void grow() {
    std::vector<T> larger(slots_.empty() ? 16 : 2 * slots_.size());
    const std::size_t count = size();
    for (std::size_t i = 0; i < count; ++i) larger[i] = (*this)[i];
    slots_.swap(larger);
    head_ = 0;
    tail_ = count;
  }
};

}  // namespace coinfer
