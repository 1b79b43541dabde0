#include "paths/key_arena.hpp"

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace routestats {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;
constexpr std::size_t kMostHugePages = 16;  // of a region
constexpr std::size_t kMostKeptBytes = std::size_t{512} << 20;

// Unused regions of the whole process. The next arena takes them without new page faults.
class SpareRegions {
 public:
  // The smallest region of at least `bytes`; one without memory if there is none.
  KeyArena::Region take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    auto best = spare_.end();
    for (auto region = spare_.begin(); region != spare_.end(); ++region) {
      if (region->bytes < bytes || (best != spare_.end() && best->bytes <= region->bytes)) continue;
      best = region;
    }
    if (best == spare_.end()) return {nullptr, 0};
    const KeyArena::Region found = *best;
    spare_.erase(best);
    kept_bytes_ -= found.bytes;
    return found;
  }

  // Frees regions that would exceed the bound. The system takes the pages of the kept ones when it
  // is short of memory; until then they need no page faults and no clearing.
  void put(KeyArena::Region region) noexcept {
#if defined(__linux__) && defined(MADV_FREE)
    madvise(region.memory, region.bytes, MADV_FREE);
#endif
    {
      const std::lock_guard lock(mutex_);
      if (kept_bytes_ + region.bytes <= kMostKeptBytes && spare_.size() < spare_.capacity()) {
        spare_.push_back(region);
        kept_bytes_ += region.bytes;
        return;
      }
    }
    ::operator delete(region.memory, std::align_val_t{kHugePageBytes});
  }

  SpareRegions() { spare_.reserve(kMostKeptBytes / kHugePageBytes); }

 private:
  std::mutex mutex_;
  std::vector<KeyArena::Region> spare_;
  std::size_t kept_bytes_ = 0;
};

// Never destroyed, because arenas may live longer than static objects.
SpareRegions& spare_regions() {
  static SpareRegions* const spare = new SpareRegions;
  return *spare;
}

}  // namespace

KeyArena::~KeyArena() {
  for (const Region& region : regions_) spare_regions().put(region);
}

std::uint64_t* KeyArena::allocate(std::size_t words) {
  const std::lock_guard lock(mutex_);
  if (words > left_words_) {
    // Regions grow with their number, so few paths take little memory and many paths few calls.
    const std::size_t pages = std::clamp<std::size_t>(regions_.size(), 1, kMostHugePages);
    const std::size_t needed = words * sizeof(std::uint64_t) + kHugePageBytes - 1;
    const std::size_t bytes =
        std::max(pages * kHugePageBytes, needed / kHugePageBytes * kHugePageBytes);
    regions_.reserve(regions_.size() + 1);
    Region region = spare_regions().take(bytes);
    if (region.memory == nullptr) {
      region = {::operator new(bytes, std::align_val_t{kHugePageBytes}), bytes};
#if defined(__linux__)
      madvise(region.memory, bytes, MADV_HUGEPAGE);  // a hint; it may be refused
#endif
    }
    regions_.push_back(region);
    next_ = static_cast<std::uint64_t*>(region.memory);
    left_words_ = region.bytes / sizeof(std::uint64_t);
  }
  std::uint64_t* piece = next_;
  next_ += words;
  left_words_ -= words;
  return piece;
}

}  // namespace routestats
