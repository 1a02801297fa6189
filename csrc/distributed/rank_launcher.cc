#include "distributed/rank_launcher.h"

#include <sys/random.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace msserving {
namespace {

// Names this process to the worker, so that its new connection replaces its old one.
std::string Identity() {
  static const std::string random = [] {
    char bytes[16] = {};
    [[maybe_unused]] const ssize_t got = getrandom(bytes, sizeof(bytes), 0);
    return std::string(bytes, sizeof(bytes));
  }();
  return random + std::to_string(getpid());
}

}  // namespace

Status RankLauncher::Connect(int64_t timeout_ns, std::string* configuration) {
  Close();
  {
    std::lock_guard lock(mutex_);
    configured_ = false;
    ended_ = false;
    events_.clear();
  }
  FrameWriter hello;
  hello.U32(kFrameMagic);
  hello.Text(Identity());
  std::unique_ptr<RankLink> link;
  if (Status status = RankLink::Open(worker_, timeout_ns, this, &link); !status.ok()) {
    OnEnd(status.message());
    return status;
  }
  link->Start(FrameKind::kHelloLauncher, hello.Take());
  {
    std::lock_guard lock(link_mutex_);
    link_ = std::move(link);
  }
  std::string why;
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return configured_ || ended_; });
    if (configured_) {
      *configuration = configuration_;
      return Status::Ok();
    }
    why = !events_.empty() ? events_.front().reason : ended_ ? why_ : "nobody answers";
  }
  Close();
  return Status(ErrorKind::kServableUnavailable, "cannot connect to " + worker_.address + ": " + why);
}

void RankLauncher::Claim(const std::vector<uint32_t>& ranks, const std::string& host, const std::string& scheduler) {
  FrameWriter claim;
  claim.ShortText(host);
  claim.ShortText(scheduler);
  claim.U32(static_cast<uint32_t>(ranks.size()));
  for (const uint32_t rank : ranks) {
    claim.U32(rank);
  }
  Send(FrameKind::kClaim, claim.Take());
}

Status RankLauncher::NextEvent(int64_t timeout_ns, bool* found, LauncherEvent* event) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return !events_.empty() || ended_; });
  *found = !events_.empty();
  if (*found) {
    *event = std::move(events_.front());
    events_.pop_front();
    return Status::Ok();
  }
  return ended_ ? Status(ErrorKind::kCancelled, why_) : Status::Ok();
}

void RankLauncher::AgentDied(uint32_t rank, const std::string& text) { Tell(FrameKind::kAgentDied, rank, text); }

void RankLauncher::LogLines(uint32_t rank, const std::string& text) { Tell(FrameKind::kLogLines, rank, text); }

void RankLauncher::Tell(FrameKind kind, uint32_t rank, const std::string& text) {
  FrameWriter body;
  body.U32(rank);
  body.ShortText(text);
  Send(kind, body.Take());
}

void RankLauncher::Send(FrameKind kind, std::string body) {
  std::lock_guard lock(link_mutex_);
  if (link_ != nullptr) {
    link_->Send(kind, std::move(body));
  }
}

void RankLauncher::Close() {
  std::shared_ptr<RankLink> link;
  {
    std::lock_guard lock(link_mutex_);
    link = std::move(link_);
  }
  if (link != nullptr) {
    link->Close();
  }
}

Status RankLauncher::OnFrame(FrameKind kind, FrameBody* body) {
  FrameReader reader(body->bytes());
  LauncherEvent event;
  switch (kind) {
    case FrameKind::kConfiguration: {
      std::lock_guard lock(mutex_);
      configuration_.assign(reinterpret_cast<const char*>(body->bytes().data()), body->size());
      configured_ = true;
      break;
    }
    case FrameKind::kLaunch:
      event.kind = LauncherEvent::Kind::kLaunch;
      event.token = reader.Text();
      event.scheduler = reader.Text();
      break;
    case FrameKind::kStop:
    case FrameKind::kRefused:
      event.kind = kind == FrameKind::kStop ? LauncherEvent::Kind::kStop : LauncherEvent::Kind::kRefused;
      event.reason = reader.Text();
      break;
    case FrameKind::kLogWanted:
      event.kind = LauncherEvent::Kind::kLogWanted;
      event.rank = reader.U32();
      break;
    default: return Status(ErrorKind::kInvalidInput, "the worker has sent what no launcher expects");
  }
  if (kind != FrameKind::kConfiguration) {
    if (!reader.AtEnd()) {
      return Status(ErrorKind::kInvalidInput, "the worker has sent a broken frame");
    }
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  changed_.notify_all();
  return Status::Ok();
}

void RankLauncher::OnEnd(const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    why_ = why;
  }
  changed_.notify_all();
}

}  // namespace msserving
