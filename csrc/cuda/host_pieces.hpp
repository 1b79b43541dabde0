#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cuda/device_ids.hpp"
#include "cuda/memory.hpp"

namespace routestats::cuda {

// Copies an array without gaps from host memory to device memory in pieces of bounded size. The
// copies and the work on each piece follow one another in the order of the stream.
class HostPieces {
 public:
  // Calls `use(view, first)` for every piece: a view in device memory, and the number that its
  // token 0 has in `array`.
  template <class Use>
  void for_each(const IdView& array, cudaStream_t stream, Use&& use) {
    const std::uint64_t row_bytes = std::uint64_t{array.layers} * array.slots * array.item_bytes;
    if (array.tokens == 0 || row_bytes == 0) return;
    const std::uint64_t piece = std::max<std::uint64_t>(1, kMostBytes / row_bytes);
    char* const memory =
        memory_.reserve(std::min(piece, array.tokens) * row_bytes, kMostBytes, stream);
    for (std::uint64_t first = 0; first < array.tokens; first += piece) {
      IdView part = array.from(first, std::min(piece, array.tokens - first));
      check(cudaMemcpyAsync(memory, part.data, part.tokens * row_bytes, cudaMemcpyHostToDevice,
                            stream),
            "copy ids to the device");
      part.data = memory;
      use(part, first);
    }
  }

 private:
  static constexpr std::uint64_t kMostBytes = 256u << 20;

  StreamScratch<char> memory_;
};

}  // namespace routestats::cuda
