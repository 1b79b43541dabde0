#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace routestats {

// Memory that any thread takes in pieces, and that is given back all at once. The arena asks the
// system for huge pages, and the process keeps up to 512 MiB of freed arenas for the next ones,
// unless the system needs it: otherwise page faults would limit the speed of filling it.
class KeyArena {
 public:
  KeyArena() = default;
  KeyArena(const KeyArena&) = delete;
  KeyArena& operator=(const KeyArena&) = delete;
  ~KeyArena();

  // Uninitialised memory, valid as long as the arena. Throws std::bad_alloc.
  std::uint64_t* allocate(std::size_t words);

  struct Region {
    void* memory;
    std::size_t bytes;
  };

 private:
  std::mutex mutex_;
  std::vector<Region> regions_;
  std::uint64_t* next_ = nullptr;
  std::size_t left_words_ = 0;
};

}  // namespace routestats
