// Times in a row, written once and read a few times: in pages as large as the system has, so that page faults do not
// cost more than the work.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace coinfer {

class Times {
 public:
  std::span<const std::int64_t> all() const noexcept { return {times_.get(), size_}; }

  /// Where `count` more may be written; `add` takes those that were.
  std::int64_t* room(std::size_t count) {
    if (size_ + count > capacity_) reserve(std::max(2 * capacity_, size_ + count));
    return times_.get() + size_;
  }
  void add(std::size_t count) noexcept { size_ += count; }
  void push(std::int64_t ns) {
    *room(1) = ns;
    add(1);
  }

  void reserve(std::size_t count) {
    if (count <= capacity_) return;
    const std::size_t bytes = (count * sizeof(std::int64_t) + page - 1) / page * page;
    std::unique_ptr<std::int64_t, Free> larger(static_cast<std::int64_t*>(std::aligned_alloc(page, bytes)));
    if (!larger) throw std::bad_alloc();
#ifdef __linux__
    if (bytes > page) madvise(larger.get(), bytes, MADV_HUGEPAGE);  // a wish: it may be refused
#endif
    std::copy(times_.get(), times_.get() + size_, larger.get());
    times_ = std::move(larger);
    capacity_ = bytes / sizeof(std::int64_t);
  }

 private:
  static constexpr std::size_t page = std::size_t{1} << 21;
  struct Free {
    void operator()(std::int64_t* times) const noexcept { std::free(times); }
  };
  std::unique_ptr<std::int64_t, Free> times_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace coinfer
