// How long a deployment or a link takes: laws, and one rounding to whole nanoseconds (half to even) per duration.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "coinfer/sim/random.hpp"

namespace coinfer {

/// Beyond max_ns (104 days) a draw from a long tail counts as max_ns: sums of a thousand still fit.
inline constexpr double max_ns = 0x1.0p53;
inline std::int64_t to_ns(double ns) noexcept { return std::llrint(ns < max_ns ? ns : max_ns); }

/// What is drawn from a law takes a nanosecond at least, so that such a service ends later than it began.
inline constexpr std::int64_t drawn_min_ns = 1;
inline std::int64_t drawn_ns(double ns) noexcept { return std::max(to_ns(ns), drawn_min_ns); }

enum class Law : std::uint8_t { constant, exponential, lognormal, gamma, measured, empirical };

/// constant: a. exponential: mean a. lognormal: ln-mean a, ln-deviation b. gamma: scale a, shape b. measured: a x
/// measured_us[sample]. empirical: one of measured_us[0..b), whose mean is a. All in nanoseconds but measured_us.
struct Service {
  Law law = Law::constant;
  double a = 0.0;
  double b = 0.0;
  const float* measured_us = nullptr;

  bool random() const noexcept { return law != Law::constant && law != Law::measured; }

  std::int64_t draw(std::uint64_t seed, std::uint64_t request, std::uint32_t deployment,
                    std::uint32_t sample) const noexcept {
    switch (law) {
      case Law::measured: return to_ns(a * static_cast<double>(measured_us[sample]) * 1e3);
      case Law::exponential: return drawn_ns(-a * std::log(uniforms(seed, Stream::service, request, deployment, 0)[0]));
      case Law::lognormal:
        return drawn_ns(std::exp(a + b * normal(uniforms(seed, Stream::service, request, deployment, 0))));
      case Law::gamma: return drawn_ns(a * standard_gamma(seed, request, deployment));
      case Law::empirical:
        return to_ns(static_cast<double>(measured_us[choose(seed, request, deployment, static_cast<std::size_t>(b))]) *
                     1e3);
      case Law::constant: break;
    }
    return to_ns(a);
  }

  /// One of `count`, for a request at a deployment.
  static std::size_t choose(std::uint64_t seed, std::uint64_t request, std::uint32_t deployment,
                            std::size_t count) noexcept {
    const double u = uniforms(seed, Stream::service, request, deployment, 0)[0];
    return std::min(static_cast<std::size_t>(u * static_cast<double>(count)), count - 1);
  }

 private:
  static double normal(const std::array<double, 2>& u) noexcept {  // Box and Muller 1958
    return std::sqrt(-2.0 * std::log(u[0])) * std::cos(6.283185307179586476925 * u[1]);
  }

  // Marsaglia and Tsang 2000; shapes below 1 by their boost U^(1/shape).
  double standard_gamma(std::uint64_t seed, std::uint64_t request, std::uint32_t deployment) const noexcept {
    const double shape = b < 1.0 ? b + 1.0 : b;
    const double d = shape - 1.0 / 3.0;
    const double c = 1.0 / std::sqrt(9.0 * d);
    for (std::uint32_t attempt = 0;; ++attempt) {
      const double x = normal(uniforms(seed, Stream::service, request, deployment, 2 * attempt));
      const std::array<double, 2> u = uniforms(seed, Stream::service, request, deployment, 2 * attempt + 1);
      const double v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
      if (v > 0.0 && std::log(u[0]) < 0.5 * x * x + d - d * v + d * std::log(v)) {
        return d * v * (b < 1.0 ? std::pow(u[1], 1.0 / b) : 1.0);
      }
    }
  }
};

}  // namespace coinfer
