#pragma once

#include <cstdint>

#include "base/host_device.hpp"
#include "capture/route_row.hpp"

namespace routestats {

enum class IdType : std::uint8_t { i16, i32, i64, u32 };
enum class WeightType : std::uint8_t { f32, f16, bf16 };

// The choices of a router for `rows` tokens at one layer: two row-major [rows, top_k] matrices.
struct LayerRouting {
  const void* ids;
  IdType id_type;
  const void* weights;
  WeightType weight_type;
  std::uint64_t rows;
};

ROUTESTATS_HOST_DEVICE inline std::int64_t load_integer(const void* values, IdType type,
                                                        std::uint64_t index) {
  switch (type) {
    case IdType::i16:
      return static_cast<const std::int16_t*>(values)[index];
    case IdType::i32:
      return static_cast<const std::int32_t*>(values)[index];
    case IdType::u32:
      return static_cast<const std::uint32_t*>(values)[index];
    case IdType::i64:
      break;
  }
  return static_cast<const std::int64_t*>(values)[index];
}

ROUTESTATS_HOST_DEVICE inline float load_float(const void* values, WeightType type,
                                               std::uint64_t index) {
  switch (type) {
    case WeightType::f32:
      return static_cast<const float*>(values)[index];
    case WeightType::f16:
      return float_from_half(static_cast<const std::uint16_t*>(values)[index]);
    case WeightType::bf16:
      break;
  }
  return float_from_bfloat16(static_cast<const std::uint16_t*>(values)[index]);
}

ROUTESTATS_HOST_DEVICE inline std::int64_t load_id(const LayerRouting& routing,
                                                   std::uint64_t index) {
  return load_integer(routing.ids, routing.id_type, index);
}

ROUTESTATS_HOST_DEVICE inline float load_weight(const LayerRouting& routing, std::uint64_t index) {
  return load_float(routing.weights, routing.weight_type, index);
}

}  // namespace routestats
