// A test file is a list of TEST("name") { ... } blocks; CHECK stops the block, prints where and with what values.
// Small on purpose: the C++ tests must build offline with a compiler and CMake alone.
#pragma once

#include <cstdio>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace check {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class A, class B>
void equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (!(a == b)) {
    std::ostringstream message;
    message.precision(17);
    message << file << ":" << line << ": " << text << " (" << a << " against " << b << ")";
    throw Failure(message.str());
  }
}

inline void that(bool ok, const char* text, const char* file, int line) {
  if (!ok) throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + text);
}

inline int run_all() {
  int failed = 0;
  for (const Case& c : cases()) {
    try {
      c.run();
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAILED %s: %s\n", c.name, error.what());
    }
  }
  std::printf("%zu passed, %d failed\n", cases().size() - static_cast<std::size_t>(failed), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK_JOIN2(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN2(a, b)
#define TEST(name) TEST_AT(name, CHECK_JOIN(test_case_, __LINE__), CHECK_JOIN(test_entry_, __LINE__))
#define TEST_AT(name, id, entry)                \
  static void id();                             \
  static const check::Register entry(name, id); \
  static void id()
#define CHECK(condition) check::that(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(a, b) check::equal((a), (b), #a " == " #b, __FILE__, __LINE__)
#define CHECK_THROWS(expression, type)                                     \
  do {                                                                     \
    bool thrown = false;                                                   \
    try {                                                                  \
      (void)(expression);                                                  \
    } catch (const type&) {                                                \
      thrown = true;                                                       \
    }                                                                      \
    check::that(thrown, #expression " throws " #type, __FILE__, __LINE__); \
  } while (false)
