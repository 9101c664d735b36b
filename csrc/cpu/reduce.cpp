#include "cpu/reduce.h"

#include <limits>
#include <stdexcept>
#include <type_traits>

#include "cpu/number_types.h"

namespace hepfeed {
namespace {

double widened(Half value) { return half_to_float(value.bits); }
template <class T>
T widened(T value) {
  return value;
}

template <class To, class From>
To narrowed(From value) {
  if constexpr (std::is_same_v<To, Half>) {
    To half;  // by convert(), which rounds once
    const auto wide = static_cast<double>(value);
    convert(reinterpret_cast<const uint8_t*>(&wide), Type::f64, reinterpret_cast<uint8_t*>(&half), Type::f16,
            1);
    return half;
  } else {
    return static_cast<To>(value);
  }
}

// Adds without overflow; false where the sum does not fit.
template <class Sum, class Value>
bool add(Sum& sum, Value value) {
  if constexpr (std::is_integral_v<Sum>) return !__builtin_add_overflow(sum, static_cast<Sum>(value), &sum);
  sum += static_cast<Sum>(value);
  return true;
}

template <class Sum, class To>
bool fits(Sum value) {
  if constexpr (std::is_integral_v<Sum> && std::is_integral_v<To>)
    return value >= static_cast<Sum>(std::numeric_limits<To>::min()) &&
           value <= static_cast<Sum>(std::numeric_limits<To>::max());
  return true;
}

template <class From, class To>
size_t reduce(const Columns& in, const uint32_t* order, const int64_t* starts, size_t groups,
              Reduction reduction, To* out, size_t out_stride) {
  constexpr bool exact = std::is_integral_v<From> && std::is_integral_v<To>;
  using Sum =
      std::conditional_t<exact, std::conditional_t<std::is_signed_v<From>, int64_t, uint64_t>, double>;
  const auto* data = static_cast<const From*>(in.data);
  for (size_t g = 0; g < groups; ++g) {
    const int64_t first = starts[g], last = starts[g + 1];
    for (size_t c = 0; c < in.count; ++c) {
      const From* column = data + c;
      const size_t stride = in.row_stride;
      if (reduction == Reduction::max) {
        auto largest = widened(column[order[first] * stride]);
        for (int64_t i = first + 1; i < last; ++i) {
          const auto value = widened(column[order[i] * stride]);
          if (!(value <= largest) && largest == largest) largest = value;
        }
        out[g * out_stride + c] = narrowed<To>(largest);
        continue;
      }
      Sum sum = 0;
      bool good = true;
      for (int64_t i = first; i < last; ++i) good &= add(sum, widened(column[order[i] * stride]));
      if (!good || !fits<Sum, To>(sum)) return g;
      if (reduction == Reduction::mean) sum /= static_cast<Sum>(last - first);
      out[g * out_stride + c] = narrowed<To>(sum);
    }
  }
  return groups;
}

template <class From>
size_t reduce_from(const Columns& in, const uint32_t* order, const int64_t* starts, size_t groups,
                   Reduction reduction, void* out, Type out_type, size_t out_stride) {
  if (out_type == in.type)
    return reduce<From>(in, order, starts, groups, reduction, static_cast<From*>(out), out_stride);
  if (out_type == Type::f32)
    return reduce<From>(in, order, starts, groups, reduction, static_cast<float*>(out), out_stride);
  throw std::invalid_argument("groups are reduced to float32 or to the type of the input");
}

}  // namespace

size_t reduce_groups(const Columns& in, const uint32_t* order, const int64_t* starts, size_t groups,
                     Reduction reduction, void* out, Type out_type, size_t out_stride) {
  const auto run = [&](auto zero) {
    return reduce_from<decltype(zero)>(in, order, starts, groups, reduction, out, out_type, out_stride);
  };
  return with_number_type(in.type, "items without a number type can't be reduced", run);
}

}  // namespace hepfeed
