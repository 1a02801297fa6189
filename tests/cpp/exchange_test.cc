#include "tensor/exchange.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "base/clock.h"
#include "tensor/control_socket.h"
#include "tensor/shared_memory.h"

namespace msserving {
namespace {

constexpr size_t kSlab = 1 << 20;

TensorView View(const void* data, uint64_t bytes, DataType dtype, std::vector<int64_t> dims) {
  TensorView view;
  view.data = static_cast<const uint8_t*>(data);
  view.bytes = bytes;
  view.dtype = dtype;
  view.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), view.dims);
  return view;
}

class Exchange : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(SharedMemory::Create("test", kSlab, &slab_).ok());
    tensors_ = {View(numbers_, 16, DataType::kFloat32, {2, 2}), View("text", 4, DataType::kString, {}),
                View(numbers_, 0, DataType::kInt64, {3, 0}), View(numbers_, 4, DataType::kInt32, {})};
    bytes_ = RequestBlockBytes(tensors_);
    WriteRequestBlock(slab_.base(), 4096, 42, kNoDeadline, 1, 2, 2, tensors_);
  }

  float numbers_[4] = {1, 2, 3, 4};
  SharedMemory slab_;
  std::vector<TensorView> tensors_;
  uint64_t bytes_ = 0;
};

TEST_F(Exchange, RequestComesOutAsItWentIn) {
  RequestRecord* record = nullptr;
  ASSERT_TRUE(ReadRequestBlock(slab_.base(), kSlab, 4096, bytes_, &record).ok());
  EXPECT_EQ(record->request, 42u);
  EXPECT_EQ(record->instances, 2u);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const TensorView view = ViewOf(slab_.base(), record->tensors()[i]);
    EXPECT_EQ(view.dtype, tensors_[i].dtype);
    EXPECT_TRUE(std::ranges::equal(view.shape(), tensors_[i].shape()));
    ASSERT_EQ(view.bytes, tensors_[i].bytes);
    EXPECT_EQ(std::memcmp(view.data, tensors_[i].data, view.bytes), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % kTensorAlignment, 0u);
  }
}

TEST_F(Exchange, DamagedBlocksAreRefusedWithoutReadingOutside) {
  RequestRecord* record = nullptr;
  EXPECT_FALSE(ReadRequestBlock(slab_.base(), kSlab, 4097, bytes_, &record).ok());
  EXPECT_FALSE(ReadRequestBlock(slab_.base(), kSlab, kSlab, bytes_, &record).ok());
  EXPECT_FALSE(ReadRequestBlock(slab_.base(), kSlab, 4096, UINT64_MAX, &record).ok());
  std::mt19937 random(1);
  std::vector<uint8_t> sound(slab_.base() + 4096, slab_.base() + 4096 + bytes_);
  const size_t records = sizeof(RequestRecord) + tensors_.size() * sizeof(TensorRecord);
  for (int i = 0; i < 50'000; ++i) {
    std::memcpy(slab_.base() + 4096, sound.data(), sound.size());
    for (int flips = 0; flips < 3; ++flips) {
      slab_.base()[4096 + random() % records] = static_cast<uint8_t>(random());
    }
    if (ReadRequestBlock(slab_.base(), kSlab, 4096, bytes_, &record).ok()) {
      for (uint32_t t = 0; t < record->instances * record->inputs; ++t) {
        const TensorView view = ViewOf(slab_.base(), record->tensors()[t]);
        ASSERT_GE(view.data, slab_.base() + 4096);
        ASSERT_LE(view.data + view.bytes, slab_.base() + 4096 + bytes_);
      }
    }
    const ReplyRecord* reply = nullptr;
    (void)ReadReplyBlock(slab_.base(), kSlab, 4096, bytes_, &reply);
  }
}

TEST_F(Exchange, MemoryCannotBeShrunkUnderTheOtherSide) {
  EXPECT_NE(ftruncate(slab_.fd(), 0), 0);
  UniqueFd unsealed(memfd_create("unsealed", 0));
  SharedMemory memory;
  EXPECT_FALSE(SharedMemory::Map(std::move(unsealed), &memory).ok());
}

TEST(ControlSocket, CarriesBodiesAndDescriptors) {
  UniqueFd a;
  UniqueFd b;
  ASSERT_TRUE(MakeControlPair(&a, &b).ok());
  SharedMemory memory;
  ASSERT_TRUE(SharedMemory::Create("sent", 4096, &memory).ok());
  memory.base()[7] = 99;
  const std::string body(100'000, 'x');
  ASSERT_TRUE(SendControl(a.get(), 'S', body, {memory.fd(), memory.fd()}).ok());
  ControlMessage message;
  ASSERT_TRUE(ReceiveControl(b.get(), &message).ok());
  EXPECT_EQ(message.kind, 'S');
  EXPECT_EQ(message.body, body);
  ASSERT_EQ(message.fds.size(), 2u);
  SharedMemory mapped;
  ASSERT_TRUE(SharedMemory::Map(std::move(message.fds[1]), &mapped).ok());
  EXPECT_EQ(mapped.base()[7], 99);
  a.Reset();
  EXPECT_EQ(ReceiveControl(b.get(), &message).kind(), ErrorKind::kCancelled);
}

TEST(ControlMemory, ThatIsTooSmallIsRefused) {
  for (const size_t missing : {size_t{0}, size_t{4096}}) {
    SharedMemory made;
    ASSERT_TRUE(SharedMemory::Create("rings", ChannelLayout::kBytes - missing, &made).ok());
    SharedMemory mapped;
    const Status status = MapControlMemory(UniqueFd(dup(made.fd())), &mapped);
    EXPECT_EQ(status.ok(), missing == 0) << status.message();
    EXPECT_EQ(status.message(), missing == 0 ? ""
                                             : "control memory of " + std::to_string(ChannelLayout::kBytes - missing) +
                                                   " bytes, " + std::to_string(ChannelLayout::kBytes) + " are needed");
  }
}

}  // namespace
}  // namespace msserving
