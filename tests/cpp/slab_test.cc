#include "tensor/slab.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace msserving {
namespace {

TEST(Slab, BlocksAreAlignedAndNeverOverlap) {
  SlabAllocator slab(64 << 20);
  std::mt19937_64 random(7);
  std::map<uint64_t, uint64_t> used;  // offset -> bytes asked for
  for (int step = 0; step < 200'000; ++step) {
    if (used.empty() || random() % 3 != 0) {
      const uint64_t bytes = uint64_t{1} << (random() % 21);
      const uint64_t asked = bytes + random() % bytes;
      const uint64_t offset = slab.Allocate(asked);
      if (offset == SlabAllocator::kNone) {
        const auto victim = used.begin();
        ASSERT_TRUE(slab.Free(victim->first));
        used.erase(victim);
        continue;
      }
      ASSERT_EQ(offset % SlabAllocator::kAlignment, 0u);
      ASSERT_LE(offset + asked, uint64_t{64} << 20);
      const auto next = used.lower_bound(offset);
      ASSERT_TRUE(next == used.end() || offset + asked <= next->first);
      if (next != used.begin()) {
        const auto before = std::prev(next);
        ASSERT_LE(before->first + before->second, offset);
      }
      used.emplace(offset, asked);
    } else {
      auto victim = used.begin();
      std::advance(victim, random() % used.size());
      ASSERT_TRUE(slab.Free(victim->first));
      used.erase(victim);
    }
    ASSERT_EQ(slab.blocks(), used.size());
  }
  for (const auto& [offset, bytes] : used) {
    ASSERT_TRUE(slab.Free(offset));
  }
  EXPECT_EQ(slab.used_bytes(), 0u);
  // Everything has merged again: the whole range is one block.
  EXPECT_NE(slab.Allocate(64 << 20), SlabAllocator::kNone);
}

// Freed blocks are used again before fresh memory is, so that the pages touched in the long run are few.
TEST(Slab, TouchesLittleMoreThanWhatIsUsedAtOnce) {
  SlabAllocator slab(uint64_t{2} << 30);
  std::mt19937_64 random(1);
  std::vector<uint64_t> used;
  std::set<uint64_t> pages;
  uint64_t most_used = 0;
  for (int step = 0; step < 400'000; ++step) {
    if (used.empty() || (used.size() < 40 && random() % 2 == 0)) {
      const uint64_t bytes = random() % 4 == 0 ? uint64_t{65'537} << random() % 6 : 64 + random() % 60'000;
      used.push_back(slab.Allocate(bytes));
      ASSERT_NE(used.back(), SlabAllocator::kNone);
      most_used = std::max(most_used, slab.used_bytes());
      for (uint64_t page = used.back() / 4096; page <= (used.back() + bytes - 1) / 4096; ++page) {
        pages.insert(page);
      }
    } else {
      std::swap(used[random() % used.size()], used.back());
      ASSERT_TRUE(slab.Free(used.back()));
      used.pop_back();
    }
  }
  EXPECT_LT(pages.size() * 4096, 2 * most_used);
}

TEST(Slab, CapIsHard) {
  SlabAllocator slab(1 << 20);
  EXPECT_EQ(slab.Allocate((1 << 20) + 1), SlabAllocator::kNone);
  EXPECT_EQ(slab.Allocate(UINT64_MAX), SlabAllocator::kNone);
  EXPECT_EQ(slab.Allocate(1 << 20), 0u);
  EXPECT_EQ(slab.Allocate(1), SlabAllocator::kNone);
  EXPECT_TRUE(slab.Free(0));
  EXPECT_NE(slab.Allocate(1), SlabAllocator::kNone);
}

TEST(Slab, FreeingWhatIsNotInUseIsRefused) {
  SlabAllocator slab(1 << 20);
  EXPECT_FALSE(slab.Free(0));
  const uint64_t small = slab.Allocate(100);
  EXPECT_FALSE(slab.Free(small + 64));
  EXPECT_FALSE(slab.Free(small + (1 << 20)));
  EXPECT_FALSE(slab.Free(UINT64_MAX));
  EXPECT_TRUE(slab.Free(small));
  EXPECT_FALSE(slab.Free(small));
}

TEST(Slab, EverySmallSizeFitsItsClass) {
  SlabAllocator slab(256 << 20);
  for (uint64_t bytes = 0; bytes <= SlabAllocator::kSmallLimit; bytes += 17) {
    const uint64_t before = slab.used_bytes();
    const uint64_t offset = slab.Allocate(bytes);
    ASSERT_NE(offset, SlabAllocator::kNone);
    const uint64_t taken = slab.used_bytes() - before;
    ASSERT_GE(taken, bytes);
    ASSERT_LE(taken, bytes + bytes / 4 + 64);
    ASSERT_TRUE(slab.Free(offset));
  }
}

}  // namespace
}  // namespace msserving
