#include "net/output_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace msserving {

std::span<const uint8_t> BodyReader::Next(size_t limit) {
  if (left_ == 0 || limit == 0) {
    return {};
  }
  for (;;) {
    const bool slices_left = slice_ < body_->slices.size();
    const size_t encoded_until = slices_left ? body_->slices[slice_].at : body_->encoded.size();
    if (encoded_at_ < encoded_until) {
      const size_t take = std::min(limit, encoded_until - encoded_at_);
      const uint8_t* data = body_->encoded.data() + encoded_at_;
      encoded_at_ += take;
      left_ -= take;
      return {data, take};
    }
    const OutgoingBody::Slice& slice = body_->slices[slice_];
    const size_t take = std::min(limit, slice.size - slice_at_);
    const uint8_t* data = slice.data + slice_at_;
    slice_at_ += take;
    left_ -= take;
    if (slice_at_ == slice.size) {
      ++slice_;
      slice_at_ = 0;
    }
    if (take > 0) {
      return {data, take};
    }
  }
}

OutputQueue::Piece& OutputQueue::NewPiece() { return pieces_.emplace_back(Piece{nullptr, 0, {}, {}, false}); }

void OutputQueue::Append(const void* bytes, size_t size) {
  if (size == 0) {
    return;
  }
  Piece* tail = front_ < pieces_.size() ? &pieces_.back() : nullptr;
  if (tail == nullptr || !tail->copied || tail->chunk.capacity() - tail->chunk.size() < size) {
    tail = &NewPiece();
    tail->chunk = pool_.Acquire(std::max(size, kChunk));
    tail->data = tail->chunk.data();
    tail->copied = true;
  }
  tail->chunk.Append(bytes, size);
  tail->size += size;
  size_ += size;
}

void OutputQueue::AppendReference(const uint8_t* bytes, size_t size) {
  if (size == 0) {
    return;
  }
  has_references_ = true;
  size_ += size;
  Piece* tail = front_ < pieces_.size() ? &pieces_.back() : nullptr;
  if (tail != nullptr && !tail->copied && tail->data + tail->size == bytes && tail->size > 0) {
    tail->size += size;
    return;
  }
  Piece& piece = NewPiece();
  piece.data = bytes;
  piece.size = size;
}

void OutputQueue::KeepUntilSent(OutgoingBody&& body) { NewPiece().body = std::move(body); }

void OutputQueue::Append(OutgoingBody body) {
  BodyReader reader(&body);
  while (reader.left() > 0) {
    AppendAuto(reader.Next(SIZE_MAX));
  }
  Keep(std::move(body));
}

int OutputQueue::Front(iovec* pieces, int limit) const {
  int count = 0;
  for (size_t i = front_; i < pieces_.size() && count < limit; ++i) {
    if (pieces_[i].size > 0) {
      pieces[count++] = {const_cast<uint8_t*>(pieces_[i].data), pieces_[i].size};
    }
  }
  return count;
}

void OutputQueue::PopFront() {
  pieces_[front_].chunk = Buffer();
  pieces_[front_].body = OutgoingBody();
  ++front_;
  if (front_ == pieces_.size()) {
    pieces_.clear();
    front_ = 0;
    has_references_ = false;
  } else if (front_ >= 64 && front_ * 2 >= pieces_.size()) {
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<ptrdiff_t>(front_));
    front_ = 0;
  }
}

void OutputQueue::Sent(size_t size) {
  assert(size <= size_);
  size_ -= size;
  while (front_ < pieces_.size()) {
    Piece& piece = pieces_[front_];
    if (size < piece.size) {
      piece.data += size;
      piece.size -= size;
      return;
    }
    size -= piece.size;
    PopFront();
  }
}

void OutputQueue::Clear() {
  pieces_.clear();
  front_ = 0;
  size_ = 0;
  has_references_ = false;
}

}  // namespace msserving
