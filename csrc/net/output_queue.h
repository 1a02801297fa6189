// What waits to be written to one socket, in order: copied bytes, and memory of others by reference.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "net/buffer.h"

namespace msserving {

// Reads an OutgoingBody from front to back, encoded bytes and slices in their order. The body must not move or change.
class BodyReader {
 public:
  BodyReader() = default;
  explicit BodyReader(const OutgoingBody* body) : body_(body), left_(body->TotalSize()) {}

  size_t left() const { return left_; }
  // The next consecutive piece, at most `limit` bytes; empty only at the end or for limit 0.
  std::span<const uint8_t> Next(size_t limit);

 private:
  const OutgoingBody* body_ = nullptr;
  size_t left_ = 0;
  size_t encoded_at_ = 0;
  size_t slice_ = 0;
  size_t slice_at_ = 0;
};

// Not thread-safe. Small pieces are copied together so that they leave as one; large ones are written from where
// they are.
class OutputQueue {
 public:
  // From this size on a piece is not worth copying.
  static constexpr size_t kReferenceFrom = 8 << 10;

  explicit OutputQueue(BufferPool* pool) : pool_(*pool) {}
  OutputQueue(const OutputQueue&) = delete;

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }  // bytes not yet sent

  void Append(const void* bytes, size_t size);
  // `bytes` must stay valid until all that is in the queue then has been sent or cleared; see Keep().
  void AppendReference(const uint8_t* bytes, size_t size);
  // Copies or refers, by size; the same demand as AppendReference().
  void AppendAuto(std::span<const uint8_t> bytes) {
    if (bytes.size() < kReferenceFrom) {
      Append(bytes.data(), bytes.size());
    } else {
      AppendReference(bytes.data(), bytes.size());
    }
  }
  // Destroys `body` when everything appended so far has been sent (at once if nothing is pending by reference).
  void Keep(OutgoingBody&& body) {
    if (has_references_) {
      KeepUntilSent(std::move(body));
    } else {
      body.encoded = Buffer();
      body.slices.clear();
      body.keep_alive.reset();
      body.charge.Reset();
    }
  }
  // The whole body, kept until sent.
  void Append(OutgoingBody body);

  // The front of the queue as an iovec array; returns the number filled in.
  int Front(iovec* pieces, int limit) const;
  // The first `size` bytes have been sent.
  void Sent(size_t size);
  void Clear();

 private:
  static constexpr size_t kChunk = 64 << 10;

  struct Piece {
    const uint8_t* data;
    size_t size;
    Buffer chunk;       // the memory, if the bytes were copied
    OutgoingBody body;  // destroyed with the piece
    bool copied;
  };

  void KeepUntilSent(OutgoingBody&& body);
  Piece& NewPiece();
  void PopFront();

  BufferPool& pool_;
  // A ring would do; a vector with a moving front is enough, since the queue empties all the time.
  std::vector<Piece> pieces_;
  size_t front_ = 0;
  size_t size_ = 0;
  bool has_references_ = false;
};

}  // namespace msserving
