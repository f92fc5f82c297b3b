// The list of what is still to happen, ordered by (time, order): a four-ary heap, because its levels are half as many
// as those of a binary one and four neighbours share a cache line or two. And a ring, for what waits in line.
#pragma once

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

class Agenda {
 public:
  bool empty() const noexcept { return size_ == 0; }
  const Event& top() const noexcept { return events_.front(); }

  void push(const Event& event) {
    if (size_ + children > events_.size()) events_.resize(2 * events_.size(), last);
    rise(size_++, event);
  }

  /// The hole goes all the way down, and the newest event rises from there: it nearly always belongs far below, and a
  /// way whose length is known is one that the processor foresees.
  void pop() noexcept {
    const Event moved = events_[--size_];
    events_[size_] = last;
    std::size_t at = 0;
    for (;;) {
      const std::size_t first = children * at + 1;
      if (first >= size_) break;
      const std::size_t a = first + (before(events_[first + 1], events_[first]) ? 1 : 0);
      const std::size_t b = first + (before(events_[first + 3], events_[first + 2]) ? 3 : 2);
      const std::size_t least = before(events_[b], events_[a]) ? b : a;
      events_[at] = events_[least];
      at = least;
    }
    if (at != size_) rise(at, moved);
  }

 private:
  static constexpr std::size_t children = 4;
  static constexpr Event last{INT64_MAX, UINT64_MAX, {}};
  std::vector<Event> events_ = std::vector<Event>(64, last);  // `last` from size_ on, by as many as a node has children
  std::size_t size_ = 0;

  void rise(std::size_t at, const Event& event) noexcept {
    while (at > 0) {
      const std::size_t parent = (at - 1) / children;
      if (!before(event, events_[parent])) break;
      events_[at] = events_[parent];
      at = parent;
    }
    events_[at] = event;
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
