#include "net/buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>

#include "net/block_cache.h"
#include "net/output_queue.h"

namespace msserving {
namespace {

std::string Text(const Buffer& buffer) { return {reinterpret_cast<const char*>(buffer.data()), buffer.size()}; }

TEST(BufferTest, GrowsAndKeepsItsBytes) {
  Buffer buffer;
  std::string expected;
  for (int i = 0; i < 1000; ++i) {
    const std::string part = std::to_string(i);
    buffer.Append(part.data(), part.size());
    expected += part;
  }
  EXPECT_EQ(Text(buffer), expected);
}

TEST(BufferTest, PaddingBehindTheCapacityIsReadable) {
  BufferPool pool;
  Buffer buffer = pool.Acquire(100);
  buffer.Resize(buffer.capacity());
  std::memset(buffer.data() + buffer.capacity(), 7, Buffer::kPadding);  // a sanitizer sees it if not
  EXPECT_EQ(buffer.data()[buffer.capacity() + Buffer::kPadding - 1], 7);
}

TEST(BufferTest, MovedFromIsEmpty) {
  Buffer first;
  first.Append("abc", 3);
  Buffer second = std::move(first);
  EXPECT_EQ(Text(second), "abc");
  EXPECT_EQ(first.size(), 0u);  // NOLINT(bugprone-use-after-move): it is what is tested
  EXPECT_EQ(first.capacity(), 0u);
  first.Append("x", 1);
  second = std::move(first);
  EXPECT_EQ(Text(second), "x");
}

TEST(BufferPoolTest, GivesTheSameMemoryAgain) {
  BufferPool pool;
  const uint8_t* data;
  {
    Buffer buffer = pool.Acquire(5000);
    EXPECT_GE(buffer.capacity(), 5000u);
    EXPECT_EQ(buffer.size(), 0u);
    data = buffer.data();
    buffer.Append("abc", 3);
  }
  EXPECT_GE(pool.idle_bytes(), 5000u);
  Buffer again = pool.Acquire(4500);
  EXPECT_EQ(again.data(), data);
  EXPECT_EQ(again.size(), 0u);
  EXPECT_EQ(pool.idle_bytes(), 0u);
}

TEST(BufferPoolTest, IdleMemoryStaysWithinItsLimit) {
  BufferPool pool(10'000);
  {
    std::vector<Buffer> buffers;
    for (int i = 0; i < 50; ++i) {
      buffers.push_back(pool.Acquire(1000));
    }
  }
  EXPECT_LE(pool.idle_bytes(), 10'000u);
  EXPECT_GT(pool.idle_bytes(), 5'000u);
}

TEST(BufferPoolTest, GrowingGivesTheOldMemoryBack) {
  BufferPool pool;
  Buffer buffer = pool.Acquire(256);
  buffer.Append("abc", 3);
  buffer.Reserve(100'000);
  EXPECT_EQ(Text(buffer), "abc");
  EXPECT_EQ(pool.idle_bytes(), 256u);
}

std::string Drain(OutputQueue* queue, size_t step) {
  std::string all;
  while (!queue->empty()) {
    iovec pieces[4];
    const int count = queue->Front(pieces, 4);
    std::string front;
    for (int i = 0; i < count; ++i) {
      front.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
    }
    front.resize(std::min(front.size(), step));
    queue->Sent(front.size());
    all += front;
  }
  return all;
}

struct Flag final : KeepAlive {
  explicit Flag(bool* gone) : gone(gone) {}
  ~Flag() override { *gone = true; }
  bool* gone;
};

OutgoingBody MixedBody(const std::string& large, bool* gone) {
  OutgoingBody body;
  body.encoded.Append("headtail", 8);
  const auto* bytes = reinterpret_cast<const uint8_t*>(large.data());
  body.slices = {{0, bytes, 2}, {4, bytes, large.size()}, {4, bytes, 3}, {8, bytes, 0}, {8, bytes, 1}};
  body.keep_alive = std::make_unique<Flag>(gone);
  return body;
}

TEST(BodyReaderTest, PutsSlicesWhereTheyBelong) {
  bool gone = false;
  const std::string large(50, 'L');
  const OutgoingBody body = MixedBody(large, &gone);
  for (size_t limit = 1; limit < 70; ++limit) {
    std::string all;
    for (BodyReader reader(&body); reader.left() > 0;) {
      const auto piece = reader.Next(limit);
      ASSERT_FALSE(piece.empty());
      all.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    }
    EXPECT_EQ(all, "LLhead" + large + "LLLtailL");
  }
}

TEST(OutputQueueTest, KeepsOrderWhateverTheSocketTakes) {
  for (const size_t step : {1, 7, 1000, 1 << 20}) {
    BufferPool pool;
    OutputQueue queue(&pool);
    bool gone = false;
    const std::string large(OutputQueue::kReferenceFrom + 10, 'L');
    queue.Append("ab", 2);
    queue.Append(MixedBody(large, &gone));
    queue.Append("cd", 2);
    EXPECT_FALSE(gone);
    EXPECT_EQ(Drain(&queue, step), "abLLhead" + large + "LLLtailLcd");
    EXPECT_TRUE(gone);
    EXPECT_TRUE(queue.empty());
  }
}

TEST(OutputQueueTest, BodyLivesUntilItsLastByteIsSent) {
  BufferPool pool;
  OutputQueue queue(&pool);
  bool gone = false;
  const std::string large(OutputQueue::kReferenceFrom, 'L');
  queue.Append(MixedBody(large, &gone));
  queue.Sent(queue.size() - 1);
  EXPECT_FALSE(gone);
  queue.Sent(1);
  EXPECT_TRUE(gone);
}

TEST(OutputQueueTest, SmallBodyIsCopiedAndReleasedAtOnce) {
  BufferPool pool;
  OutputQueue queue(&pool);
  bool gone = false;
  const std::string small(20, 's');
  queue.Append(MixedBody(small, &gone));
  EXPECT_TRUE(gone);
  iovec pieces[4];
  EXPECT_EQ(queue.Front(pieces, 4), 1);
}

TEST(OutputQueueTest, ClearReleasesBodies) {
  BufferPool pool;
  OutputQueue queue(&pool);
  bool gone = false;
  const std::string large(OutputQueue::kReferenceFrom, 'L');
  queue.Append(MixedBody(large, &gone));
  queue.Clear();
  EXPECT_TRUE(gone);
  EXPECT_EQ(queue.size(), 0u);
}

TEST(BlockCacheTest, BlocksAreUsedAgainAndKeepTheirBytesWhenTheyGrow) {
  BlockCache cache;
  void* block = cache.Allocate(100);
  std::memset(block, 5, 100);
  cache.Free(block);
  EXPECT_EQ(cache.Allocate(120), block);
  void* larger = cache.Reallocate(block, 5000);
  EXPECT_EQ(static_cast<uint8_t*>(larger)[99], 5);
  cache.Free(larger);
  cache.Free(nullptr);
  void* none = cache.Allocate(0);
  EXPECT_NE(none, nullptr);
  cache.Free(none);
  EXPECT_EQ(cache.Allocate(SIZE_MAX), nullptr);
}

TEST(BufferPoolTest, FreesWhatNobodyNeededSinceTheLastTime) {
  BufferPool pool;
  {
    const Buffer a = pool.Acquire(1 << 20);
    const Buffer b = pool.Acquire(1 << 20);
  }
  EXPECT_EQ(pool.FreeUnused(), 0u) << "they have been used";
  { const Buffer again = pool.Acquire(1 << 20); }
  EXPECT_EQ(pool.FreeUnused(), size_t{1} << 20) << "one of them has not";
  EXPECT_EQ(pool.idle_bytes(), size_t{1} << 20);
  EXPECT_EQ(pool.FreeUnused(), size_t{1} << 20);
  EXPECT_EQ(pool.idle_bytes(), 0u);
}

}  // namespace
}  // namespace msserving
