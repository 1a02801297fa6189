// One connected socket as a byte stream, plain or TLS: what HTTP/2, HTTP/1.1 and the frames of ranks stand on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/unique_fd.h"
#include "net/buffer.h"
#include "net/event_loop.h"
#include "net/output_queue.h"

namespace msserving {

class TlsContext;  // net/tls.h
class TlsStream;   // net/tls_stream.h

// A protocol derives from this, is made with `new`, and is deleted by whoever owns it, at the latest in OnClosed().
// Everything happens on the loop's thread. While closed() is false the socket is open.
//
// Input: OnBytes() is given what was received, in memory of the loop that is valid for that call alone. At most one
// scratch buffer is read from a plain socket per wake-up, so that no connection starves the others.
//
// Output: whoever has something to send calls ScheduleOutput(), any number of times. At the end of the wake-up
// Produce() is called once; it appends to output(), and all of that leaves in one system call. If Produce() stops
// because output_full(), it is called again as soon as what it wrote has been taken by the kernel.
// What does not wait for its turn may also be appended to output() at other times, with ScheduleOutput() after it.
//
// Too much input: every wake-up and every read costs the same, however little has come. GatherInput() leaves a socket
// alone for up to kGatherNs, to the same moment for all connections of the loop; what has come by then is read in one
// call. Whoever asks for it again and again, from OnBytes(), has one wake-up each kGatherNs and no call of epoll.
//
// End: Close() may be called from anywhere, also from inside OnBytes() and Produce(). It closes the socket at once;
// the object lives on until OnClosed(), which comes exactly once, from the loop, with none of its methods on the stack.
class Connection : private IoHandler, private Flushable {
 public:
  // Output that Produce() may have pending before it should stop.
  static constexpr size_t kOutputHighWater = 512 << 10;
  static constexpr int64_t kGatherNs = 10 * kNanosPerMilli;

  // `tls` may be null. The socket must be non-blocking. Nothing happens before Start().
  Connection(EventLoop* loop, UniqueFd socket, const std::shared_ptr<TlsContext>& tls);
  Connection(const Connection&) = delete;
  virtual ~Connection();  // without OnClosed()

  EventLoop& loop() const { return loop_; }
  bool closed() const { return !socket_; }
  // Something waits for the peer to read: output(), what TLS has encrypted of it, or what can only be produced then.
  bool has_unsent() const;
  // When output last made progress, or began to be pending; meaningful while has_unsent().
  int64_t last_progress_ns() const { return last_progress_ns_; }
  // False until a TLS handshake is complete; always true for plain sockets.
  bool established() const;

  void Close();
  void GatherInput();

  // Why the TLS handshake failed; empty if it did not.
  const std::string& handshake_failure() const { return handshake_failure_; }

 protected:
  // Registers with the loop. Call once, when the derived class is ready for OnBytes(). A TLS client speaks first.
  void Start();

  virtual void OnBytes(std::span<const uint8_t> bytes) = 0;
  // The peer sends nothing more (end of file). Output still works; without an answer to give, call Close().
  virtual void OnEnd() = 0;
  virtual void Produce() = 0;
  virtual void OnClosed() = 0;

  OutputQueue& output() { return output_; }
  bool output_full() const { return output_.size() >= kOutputHighWater; }
  void ScheduleOutput() {
    if (!scheduled()) {
      loop_.ScheduleFlush(this);
    }
  }

  // Back-pressure: no OnBytes() in between. Pausing inside OnBytes() is allowed; bytes already handed over are handed
  // over. The peer's end is noticed only after ResumeReading().
  void PauseReading();
  void ResumeReading();

  // Sends what is pending, then ends the stream: the peer has a moment to read the last bytes (input is discarded)
  // before the socket is closed. No OnBytes() after this; Produce() is not called any more.
  void CloseWhenSent();

 private:
  enum class SendResult { kAllSent, kBlocked, kFailed };

  void OnIo(uint32_t events) final;
  void Flush() final;
  void Read();
  void ReadPlain();
  void GatherEnds();
  void ReadTls();
  void Discard();
  void ReachedEnd();
  SendResult Send();
  SendResult SendPlain();
  SendResult SendTls();
  void BeginLinger();
  void UpdateInterest();

  EventLoop& loop_;
  UniqueFd socket_;
  std::unique_ptr<TlsStream> tls_;
  OutputQueue output_;
  std::string handshake_failure_;
  int64_t last_progress_ns_ = 0;
  TimerId linger_timer_ = 0;
  TimerId read_again_timer_ = 0;
  TimerId gather_timer_ = 0;   // until then nothing is read
  uint32_t interest_ = 0;      // what epoll is told
  bool speaks_first_ = false;  // the client's side of TLS
  bool started_ = false;
  bool paused_ = false;
  bool ended_ = false;      // the peer's end was seen
  bool blocked_ = false;    // waits for the socket to be writable
  bool finishing_ = false;  // CloseWhenSent()
  bool lingering_ = false;  // all is sent, waiting for the peer's end
  bool close_told_ = false;
};

}  // namespace msserving
