#include "net/compression.h"

#include <algorithm>
#include <new>

namespace msserving {
namespace {

constexpr int kGzipWindow = 15 + 16;  // zlib's way of saying "gzip"
constexpr int kZlibWindow = 15;       // HTTP's "deflate" is the zlib format
constexpr int kLevel = 1;             // the event loop's time is dearer than the last few per cent of size
constexpr size_t kStep = 64 << 10;

// zlib counts in unsigned int; longer input goes in by parts.
uInt Part(size_t size) { return static_cast<uInt>(std::min<size_t>(size, 1u << 30)); }

}  // namespace

Compression::~Compression() {
  if (inflate_ready_) {
    inflateEnd(&inflate_);
  }
  if (deflate_ready_) {
    deflateEnd(&deflate_);
  }
}

Compression::Result Compression::Inflate(Encoding encoding, std::span<const uint8_t> packed, size_t limit,
                                         Buffer* plain) {
  const int window = encoding == Encoding::kGzip ? kGzipWindow : kZlibWindow;
  if (!inflate_ready_) {
    if (inflateInit2(&inflate_, window) != Z_OK) {
      throw std::bad_alloc();
    }
    inflate_ready_ = true;
  } else if (inflateReset2(&inflate_, window) != Z_OK) {
    return Result::kCorrupt;
  }
  size_t in_left = packed.size();
  inflate_.next_in = const_cast<Bytef*>(packed.data());
  inflate_.avail_in = 0;
  const size_t start = plain->size();
  for (;;) {
    if (inflate_.avail_in == 0) {
      inflate_.avail_in = Part(in_left);
      in_left -= inflate_.avail_in;
    }
    const size_t made = plain->size() - start;
    // One byte beyond the limit, to tell "exactly the limit" from "more".
    const size_t room = std::min(kStep, limit - std::min(limit, made) + 1);
    inflate_.next_out = plain->Prepare(room);
    inflate_.avail_out = static_cast<uInt>(room);
    const int result = inflate(&inflate_, Z_NO_FLUSH);
    const size_t got = room - inflate_.avail_out;
    plain->Commit(got);
    if (made + got > limit) {
      return Result::kTooLarge;
    }
    if (result == Z_STREAM_END) {
      // Nothing may follow; a second gzip member would be a way to hide more.
      return inflate_.avail_in == 0 && in_left == 0 ? Result::kOk : Result::kCorrupt;
    }
    if (result == Z_MEM_ERROR) {
      throw std::bad_alloc();
    }
    if (result != Z_OK && result != Z_BUF_ERROR) {
      return Result::kCorrupt;
    }
    if (got == 0 && inflate_.avail_in == 0 && in_left == 0) {
      return Result::kCorrupt;  // cut short
    }
  }
}

void Compression::BeginGzip(Buffer* packed, size_t plain_size) {
  if (!deflate_ready_) {
    if (deflateInit2(&deflate_, kLevel, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
      throw std::bad_alloc();
    }
    deflate_ready_ = true;
  } else {
    deflateReset(&deflate_);
  }
  packed_ = packed;
  packed_->Reserve(packed_->size() + deflateBound(&deflate_, plain_size));
}

void Compression::Deflate(std::span<const uint8_t> plain, int flush) {
  size_t in_left = plain.size();
  deflate_.next_in = const_cast<Bytef*>(plain.data());
  deflate_.avail_in = 0;
  for (;;) {
    if (deflate_.avail_in == 0) {
      deflate_.avail_in = Part(in_left);
      in_left -= deflate_.avail_in;
    }
    deflate_.next_out = packed_->Prepare(kStep);
    deflate_.avail_out = static_cast<uInt>(kStep);
    const int result = deflate(&deflate_, flush);
    packed_->Commit(kStep - deflate_.avail_out);
    const bool input_done = deflate_.avail_in == 0 && in_left == 0;
    if (flush == Z_FINISH ? result == Z_STREAM_END : input_done && deflate_.avail_out > 0) {
      return;
    }
    if (result == Z_STREAM_ERROR) {
      throw std::bad_alloc();
    }
  }
}

}  // namespace msserving
