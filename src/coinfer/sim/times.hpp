// Times in no order, written once and read a few times: in four bytes where they are below 4.3 s, and in pages as large
// as the system has, as what they cost is memory and its page faults.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace coinfer {

class Times {
 public:
  /// Those below 2^32 ns, and all others.
  std::span<const std::uint32_t> small() const noexcept { return {small_.get(), size_}; }
  std::span<const std::int64_t> large() const noexcept { return large_; }
  std::size_t size() const noexcept { return size_ + large_.size(); }

  void push(std::int64_t ns) { push({&ns, 1}); }
  void push(std::span<const std::int64_t> times) {
    if (size_ + times.size() > capacity_) reserve(std::max(2 * capacity_, size_ + times.size()));
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < times.size(); ++i) {
      any |= static_cast<std::uint64_t>(times[i]);
      small_.get()[size_ + i] = static_cast<std::uint32_t>(times[i]);
    }
    if (any >> 32 == 0) {
      size_ += times.size();
    } else {
      push_each(times);
    }
  }

  void reserve(std::size_t count) {
    if (count <= capacity_) return;
    const std::size_t bytes = (count * sizeof(std::uint32_t) + page - 1) / page * page;
    std::unique_ptr<std::uint32_t, Free> larger(static_cast<std::uint32_t*>(std::aligned_alloc(page, bytes)));
    if (!larger) throw std::bad_alloc();
#ifdef __linux__
    if (bytes > page) madvise(larger.get(), bytes, MADV_HUGEPAGE);  // a wish: it may be refused
#endif
    std::copy(small_.get(), small_.get() + size_, larger.get());
    small_ = std::move(larger);
    capacity_ = bytes / sizeof(std::uint32_t);
  }

 private:
  static constexpr std::size_t page = std::size_t{1} << 21;
  struct Free {
    void operator()(std::uint32_t* times) const noexcept { std::free(times); }
  };
  std::unique_ptr<std::uint32_t, Free> small_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  std::vector<std::int64_t> large_;

  void push_each(std::span<const std::int64_t> times) {
    for (const std::int64_t ns : times) {
      if (static_cast<std::uint64_t>(ns) >> 32 == 0) {
        small_.get()[size_++] = static_cast<std::uint32_t>(ns);
      } else {
        large_.push_back(ns);
      }
    }
  }
};

}  // namespace coinfer
