#include "distributed/rank_link.h"

#include <chrono>
#include <utility>

#include "base/thread.h"
#include "net/dial.h"

namespace msserving {
namespace {

constexpr auto kCloseWait = std::chrono::seconds(1);

}  // namespace

Status RankLink::Open(const WorkerAddress& worker, int64_t timeout_ns, RankLinkListener* listener,
                      std::unique_ptr<RankLink>* link) {
  Address address;
  if (Status status = ParseAddress(worker.address, false, &address); !status.ok()) {
    return status;
  }
  std::shared_ptr<TlsContext> tls;
  if (worker.tls) {
    TlsOptions options = *worker.tls;
    options.server_name = address.host;
    if (Status status = TlsContext::Create(options, &tls); !status.ok()) {
      return status;
    }
  }
  UniqueFd socket;
  if (Status status = Dial(address, timeout_ns, &socket); !status.ok()) {
    return status;
  }
  std::unique_ptr<RankLink> made(new RankLink(listener));
  FrameConnectionOptions options;
  options.max_body = kMaxConfiguration;
  made->connection_ = new FrameConnection(&made->loop_, std::move(socket), tls, made.get(), options);
  *link = std::move(made);
  return Status::Ok();
}

void RankLink::Start(FrameKind hello, std::string hello_body) {
  loop_.Post([this, hello, body = std::move(hello_body)] {
    connection_->Begin();
    connection_->Send(hello, body);
  });
  thread_ = StartThread("rank-link", [this] { loop_.Run(); });
}

RankLink::~RankLink() {
  if (thread_.joinable()) {
    loop_.Stop();
    thread_.join();
  }
  delete connection_;
}

void RankLink::Send(FrameKind kind, std::string body) {
  loop_.Post([this, kind, body = std::move(body)] {
    if (connection_ != nullptr) {
      connection_->Send(kind, body);
    }
  });
}

void RankLink::SendTensors(FrameKind kind, std::string_view head, uint64_t size,
                           std::span<const MsServingTensor> tensors) {
  loop_.Post([this, kind, head, size, tensors] {
    if (connection_ != nullptr) {
      connection_->SendTensors(kind, head, size, tensors);
    }
  });
}

void RankLink::Close() {
  loop_.Post([this] {
    if (connection_ != nullptr) {
      connection_->EndWhenSent("closed");
    }
  });
  std::unique_lock lock(mutex_);
  went_.wait_for(lock, kCloseWait, [this] { return gone_; });
}

Status RankLink::OnFrame(FrameConnection* connection, FrameKind kind, FrameBody* body) {
  // What the worker sends of models is as large as they need.
  if (kind == FrameKind::kBegin) {
    connection->set_max_body(kMaxRunFrame);
  }
  return listener_->OnFrame(kind, body);
}

void RankLink::OnGone(FrameConnection* connection, const std::string& why) {
  delete connection;
  connection_ = nullptr;
  listener_->OnEnd(why);
  {
    std::lock_guard lock(mutex_);
    gone_ = true;
  }
  went_.notify_all();
}

}  // namespace msserving
