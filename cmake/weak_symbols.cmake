# Fails if an object that was compiled for a wider instruction set holds a weak function: an inline function or a
# template instance that the linker may pick for the whole program, which then runs AVX-512 code on a CPU without it.
# (Weak data, `inline constexpr` tables for example, holds no instructions and is fine.)
#
#   cmake -DNM=nm -DEXPECTED=2 -P weak_symbols.cmake -- score_avx2.cpp.o score_avx512.cpp.o
cmake_minimum_required(VERSION 3.24)

set(objects "")
set(past_separator FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(index RANGE 1 ${last})
  if(past_separator)
    list(APPEND objects "${CMAKE_ARGV${index}}")
  elseif(CMAKE_ARGV${index} STREQUAL "--")
    set(past_separator TRUE)
  endif()
endforeach()
list(LENGTH objects count)
if(NOT count EQUAL EXPECTED)
  message(FATAL_ERROR "${count} objects were given, ${EXPECTED} expected: ${objects}")
endif()

set(found 0)
foreach(object IN LISTS objects)
  execute_process(COMMAND "${NM}" --demangle "${object}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]* W [^\n]*" weak "${symbols}")
  list(FILTER weak EXCLUDE REGEX " W __clang_call_terminate$") # the same few instructions everywhere
  foreach(symbol IN LISTS weak)
    message(NOTICE "${object}: ${symbol}")
    math(EXPR found "${found} + 1")
  endforeach()
endforeach()
if(found)
  message(FATAL_ERROR "${found} weak functions; move the code into an anonymous namespace, without std templates.")
endif()
