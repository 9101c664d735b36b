// CUDA's short vectors, with CUDA's alignment.
#pragma once

#define HEPFEED_VECTOR_2(name, type, bytes) \
  struct alignas(bytes) name {              \
    type x, y;                              \
  };                                        \
  inline name make_##name(type x, type y) { return name{x, y}; }

#define HEPFEED_VECTOR_4(name, type, bytes) \
  struct alignas(bytes) name {              \
    type x, y, z, w;                        \
  };                                        \
  inline name make_##name(type x, type y, type z, type w) { return name{x, y, z, w}; }

HEPFEED_VECTOR_2(int2, int, 8)
HEPFEED_VECTOR_4(int4, int, 16)
HEPFEED_VECTOR_2(uint2, unsigned, 8)
HEPFEED_VECTOR_4(uint4, unsigned, 16)
HEPFEED_VECTOR_2(float2, float, 8)
HEPFEED_VECTOR_4(float4, float, 16)
HEPFEED_VECTOR_2(double2, double, 16)

#undef HEPFEED_VECTOR_2
#undef HEPFEED_VECTOR_4
