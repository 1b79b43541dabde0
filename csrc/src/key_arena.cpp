#include "routestats/key_arena.hpp"

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace routestats {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;
constexpr std::size_t kMostHugePages = 16;  // of a region

}  // namespace

KeyArena::~KeyArena() {
  for (void* region : regions_) ::operator delete(region, std::align_val_t{kHugePageBytes});
}

std::uint64_t* KeyArena::allocate(std::size_t words) {
  const std::lock_guard lock(mutex_);
  if (words > left_words_) {
    // Regions grow with the number of them, so that few paths take little and many few calls.
    const std::size_t pages = std::clamp<std::size_t>(regions_.size(), 1, kMostHugePages);
    const std::size_t needed = words * sizeof(std::uint64_t) + kHugePageBytes - 1;
    const std::size_t bytes =
        std::max(pages * kHugePageBytes, needed / kHugePageBytes * kHugePageBytes);
    regions_.reserve(regions_.size() + 1);
    void* region = ::operator new(bytes, std::align_val_t{kHugePageBytes});
    regions_.push_back(region);
#if defined(__linux__)
    madvise(region, bytes, MADV_HUGEPAGE);  // a hint: where it is refused, nothing changes
#endif
    next_ = static_cast<std::uint64_t*>(region);
    left_words_ = bytes / sizeof(std::uint64_t);
  }
  std::uint64_t* piece = next_;
  next_ += words;
  left_words_ -= words;
  return piece;
}

}  // namespace routestats
