// The embedding API as hosts use it, through its public header.
#include "embedding_fixture.h"

namespace mindspore_serving {
namespace {

TEST_F(EmbeddingTest, StartsServesAndLeavesNothing) {
  const auto descriptors = Entries("/proc/self/fd");
  EXPECT_EQ(OurThreads(), 0U);
  {
    Server server(options_);
    EXPECT_TRUE(WaitFor([] { return OurThreads() > 0; }));  // each gives itself its name
    std::vector<std::string> states;
    server.StartServables({Config("add")}, [&states](const std::vector<WorkerState>& workers) {
      for (const WorkerState& worker : workers) {
        states.push_back(worker.label + " " + worker.state);
      }
      return true;
    });
    server.StartGrpc(Unix("socket"));
    EXPECT_THAT(states, testing::Contains(testing::StartsWith("add version 1 device0 ")));
    EXPECT_THAT(server.Stats(), HasSubstr("\"label\":\"add version 1 device0\",\"state\":\"running\""));
    const std::string log = ReadFile(directory_ / "logs" / "log_add_device0_version1.log");
    EXPECT_THAT(log, HasSubstr("\"device_id\": 0"));
    EXPECT_THAT(log, HasSubstr("descriptors [0, 1, 2, 3]"));  // nothing of the host's
    server.Stop();
    EXPECT_EQ(Entries("/proc/self/fd"), descriptors);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_ERROR(server.Stats(), kStopped, HasSubstr("the server has been stopped"));
    EXPECT_ERROR(server.StartServables({Config("add")}), kStopped, HasSubstr("the server has been stopped"));
    server.Stop();
  }
  EXPECT_TRUE(WaitFor([] { return OurThreads() == 0; }));
}

TEST_F(EmbeddingTest, TwoServersInOneProcess) {
  Server first(options_);
  ServerOptions options = options_;
  options.log_directory = (directory_ / "other logs").string();
  Server second(options);
  first.StartServables({Config("add")});
  second.StartServables({Config("add")});
  first.StartGrpc(Unix("first"));
  second.StartGrpc(Unix("second"));
  first.Stop(0);
  EXPECT_THAT(second.Stats(), HasSubstr("\"state\":\"running\""));
  second.Stop(0);
  EXPECT_TRUE(fs::exists(directory_ / "other logs" / "log_add_device0_version1.log"));
}

TEST_F(EmbeddingTest, ServableConfigsReachTheWorkers) {
  MakeServable("add", "serve", {2, 10});
  Server server(options_);
  ServableStartConfig config = Config("add");
  config.device_ids = {3, 5};
  config.device_type = "cpu";
  config.num_parallel_workers = 4;
  config.dec_key = "0123456789abcdef";
  server.StartServables({config});
  const std::string log = ReadFile(directory_ / "logs" / "log_add_device5_version10.log");
  EXPECT_THAT(log,
              HasSubstr(R"({"dec_mode": "AES-GCM", "device_id": 5, "device_type": "CPU", "extra": false, )"
                        R"("has_extra_workers": true, "servable_directory": ")" +
                        directory_.string() + R"(", "servable_name": "add", "version": 10, "version_directory": ")" +
                        (directory_ / "add/10").string() + R"("} key b'0123456789abcdef')"));
  EXPECT_THAT(server.Stats(), HasSubstr("add version 10 extra1"));
  EXPECT_THAT(server.Stats(), testing::Not(HasSubstr("extra2")));
}

TEST_F(EmbeddingTest, VersionsComeAndGo) {
  Server server(options_);
  EXPECT_ERROR(server.StopServable("add"), kInvalid, HasSubstr("stop_servable needs a running server"));
  EXPECT_ERROR(server.ReloadServables(), kInvalid, HasSubstr("reload_servables needs a running server"));
  server.StartServables({Config("add")});
  EXPECT_TRUE(server.ReloadServables().empty());
  MakeServable("add", "serve", {2});
  EXPECT_THAT(server.ReloadServables(), testing::ElementsAre(testing::Pair("add", 2)));
  EXPECT_THAT(server.Stats(), testing::Not(HasSubstr("add version 1")));
  server.StartServables({Config("add", 1)});
  EXPECT_ERROR(server.StartServables({Config("add", 1)}), kInvalid, HasSubstr("is running servable 'add' version 1"));
  EXPECT_ERROR(server.StopServable("add", 7), kInvalid,
               HasSubstr("Servable 'add' version 7 is not running: its versions 1, 2 are"));
  server.StopServable("add");
  EXPECT_ERROR(server.StopServable("add", 2), kInvalid, HasSubstr("its versions 1 are"));
  server.StopServable("add", 1);
  EXPECT_ERROR(server.StopServable("add"), kInvalid, HasSubstr("Servable 'add' is not running"));
}

TEST_F(EmbeddingTest, AWatchTakesNewVersionsAndEndsWithTheServer) {
  Server server(options_);
  EXPECT_ERROR(server.WatchVersions(), kInvalid, HasSubstr("watch_versions needs a running server"));
  server.StartServables({Config("add")});
  EXPECT_ERROR(server.WatchVersions(0.05), kInvalid, HasSubstr("should be 0 or at least 0.1, but 0.05 was given"));
  server.WatchVersions(0.1);
  MakeServable("add", "serve", {2});
  EXPECT_TRUE(WaitFor([&server] { return server.Stats().find("add version 2") != std::string::npos; }));
  EXPECT_TRUE(WaitFor([&server] { return server.Stats().find("add version 1") == std::string::npos; }));
  server.WatchVersions(0);
  server.WatchVersions(0.1);
  server.Stop(0);
}

TEST_F(EmbeddingTest, AFailureTakesBackWhatTheCallHasStarted) {
  MakeServable("broken", "fail", {1});
  Server server(options_);
  EXPECT_ERROR(server.StartServables({Config("add"), Config("broken")}), kFailed, HasSubstr("the model is broken"));
  EXPECT_THAT(server.Stats(), HasSubstr("\"workers\":[]"));
  server.StartServables({Config("add")});
  EXPECT_ERROR(server.StartServables({Config("broken")}), kFailed, HasSubstr("the model is broken"));
  EXPECT_THAT(server.Stats(), HasSubstr("\"state\":\"running\""));
}

TEST_F(EmbeddingTest, TheProgressFunctionEndsTheWaiting) {
  MakeServable("slow", "slow", {1});
  Server server(options_);
  EXPECT_ERROR(server.StartServables({Config("slow")}, [](const auto& workers) { return workers.empty(); }), kStopped,
               HasSubstr("Starting the servables was ended by its progress function"));
  EXPECT_THAT(server.Stats(), HasSubstr("\"workers\":[]"));
  EXPECT_THROW(
      server.StartServables({Config("slow")}, [](const auto&) -> bool { throw std::out_of_range("the host's own"); }),
      std::out_of_range);
  bool refused = false;
  EXPECT_ERROR(server.StartServables({Config("slow")},
                                     [&](const auto& workers) {
                                       EXPECT_ERROR(server.Stop(), kInvalid, HasSubstr("may call nothing but stats"));
                                       refused = !server.Stats().empty();
                                       return workers.empty();
                                     }),
               kStopped, HasSubstr("ended by its progress function"));
  EXPECT_TRUE(refused);
}

TEST_F(EmbeddingTest, StopEndsACallThatWaits) {
  MakeServable("slow", "slow", {1});
  Server server(options_);
  std::atomic<bool> waits{false};
  std::thread starter([&] {
    EXPECT_ERROR(server.StartServables({Config("slow")},
                                       [&waits](const auto& workers) {
                                         waits = waits || !workers.empty();
                                         return true;
                                       }),
                 kStopped, HasSubstr("Starting the servables was ended by a call of stop()"));
  });
  EXPECT_TRUE(WaitFor([&waits] { return waits.load(); }));
  std::thread other([&server] { server.Stop(0); });
  server.Stop(0);
  other.join();
  starter.join();
}

TEST_F(EmbeddingTest, ManyThreadsMayUseOneServer) {
  Server server(options_);
  server.StartServables({Config("add")});
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      try {
        while (!end) {
          EXPECT_THAT(server.Stats(), HasSubstr("workers"));
          server.SetMaxEnqueuedRequests(100);
          server.SetMaxQueueSeconds(1);
          server.SetMaxBytesInFlight(1 << 20);
        }
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kStopped);
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  server.Stop(0);
  end = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_F(EmbeddingTest, AnEndpointStartsOnce) {
  Server server(options_);
  server.StartGrpc(Unix("socket"));
  EXPECT_ERROR(
      server.StartGrpc(Unix("another")), kInvalid,
      HasSubstr("start_grpc_server has been called already and is running: call stop() before starting again"));
  EXPECT_ERROR(server.StartRest(Unix("another")), kInvalid, HasSubstr("RESTful server takes ip:port only"));
  EXPECT_ERROR(server.StartRest("203.0.113.7:1500"), kFailed, HasSubstr("203.0.113.7:1500"));
}

TEST_F(EmbeddingTest, LogLinesGoToTheSink) {
  static std::mutex mutex;
  static std::string lines;
  const auto sink = [](void* user, int32_t level, const char* text, size_t size) {
    const std::lock_guard<std::mutex> lock(mutex);
    lines.append(static_cast<const char*>(user))
        .append(std::to_string(level))
        .append(" ")
        .append(text, size)
        .append("\n");
  };
  SetLogLevel(LogLevel::kInfo);
  char name[] = "host ";
  ms_serving_log_set_sink(sink, name);
  Server(options_).Stop();
  ms_serving_log_set_sink(nullptr, nullptr);
  SetLogLevel(LogLevel::kWarning);
  EXPECT_THAT(lines, HasSubstr("host 1 event=server_stopped\n"));
}

TEST_F(EmbeddingTest, WhatIsGivenIsChecked) {
  options_.io_threads = 49;
  EXPECT_ERROR(Server{options_}, kInvalid, HasSubstr("'io_threads' should be in range [0, 48], but 49 was given"));
  options_.io_threads = 1;
  options_.worker_silence_seconds = std::numeric_limits<double>::quiet_NaN();
  EXPECT_ERROR(Server{options_}, kInvalid,
               HasSubstr("'worker_silence_seconds' should be in range [0, 1e+09], but nan"));
  options_.worker_silence_seconds.reset();
  setenv("MSSERVING_IO_THREADS", "many", 1);
  options_.io_threads = 0;
  EXPECT_ERROR(Server{options_}, kInvalid,
               HasSubstr("MSSERVING_IO_THREADS should be a number from 1 to 48, but is 'many'"));
  unsetenv("MSSERVING_IO_THREADS");
  options_.io_threads = 1;
  setenv("MSSERVING_SPIN_MICROSECONDS", "1001", 1);
  EXPECT_ERROR(
      Server{options_}, kInvalid,
      HasSubstr("MSSERVING_SPIN_MICROSECONDS should be a whole number of microseconds from 0 to 1000, 0 meaning "
                "never, but is '1001'"));
  unsetenv("MSSERVING_SPIN_MICROSECONDS");

  Server server(options_);
  EXPECT_ERROR(server.StartServables({}), kInvalid, HasSubstr("'servable_configs' should not be empty"));
  EXPECT_ERROR(server.StartServables({Config("none")}), kInvalid, HasSubstr("Check servable config failed, directory"));
  EXPECT_ERROR(server.Stop(-1), kInvalid,
               HasSubstr("'drain_seconds' should be in range [0, 86400], but -1.0 was given"));
  ListenOptions listen;
  listen.ssl_config = SSLConfig{"/nowhere.crt", "/nowhere.key", "", false};
  EXPECT_ERROR(server.StartGrpc(Unix("socket"), listen), kFailed, HasSubstr("/nowhere.crt"));
  listen.ssl_config->verify_client = true;
  EXPECT_ERROR(server.StartGrpc(Unix("socket"), listen), kInvalid,
               HasSubstr("'custom_ca' should be given when 'verify_client' is True"));
  EXPECT_THAT(server.Stats(), HasSubstr("\"workers\":[]"));
}

// A header that is older than the library knows fewer fields, one that is newer knows more.
TEST(EmbeddingAbiTest, StructsOfOtherVersions) {
  MsServingServer* server = nullptr;
  MsServingServerOptions options;
  ms_serving_server_options_init(&options, offsetof(MsServingServerOptions, log_directory));
  options.log_directory = reinterpret_cast<const char*>(1);  // beyond what was said to be there
  ASSERT_EQ(ms_serving_server_create(&options, &server), nullptr);
  ms_serving_server_destroy(server);

  struct Newer {
    MsServingServerOptions known;
    int64_t more;
  } newer;
  ms_serving_server_options_init(&newer.known, sizeof(newer));
  EXPECT_EQ(newer.more, 0);
  const auto message_of = [&server](const MsServingServerOptions* given) {
    MsServingError* error = ms_serving_server_create(given, &server);
    EXPECT_EQ(ms_serving_error_code(error), MS_SERVING_INVALID);
    EXPECT_EQ(server, nullptr);
    std::string message = ms_serving_error_message(error);
    ms_serving_error_free(error);
    return message;
  };
  EXPECT_THAT(message_of(&newer.known), HasSubstr("comes from a newer header than this library"));
  std::memset(&options, 0, sizeof(options));
  EXPECT_THAT(message_of(&options), HasSubstr("has not been initialised"));
  ms_serving_server_destroy(nullptr);
  ms_serving_error_free(nullptr);
  MsServingError* error = ms_serving_server_stop(nullptr, 1);
  EXPECT_THAT(std::string(ms_serving_error_message(error)), HasSubstr("'server' should be a server, but NULL"));
  ms_serving_error_free(error);
}

// The C++ header's defaults are the library's.
TEST(EmbeddingAbiTest, DefaultsAgree) {
  MsServingListenOptions plain;
  ms_serving_listen_options_init(&plain, sizeof(plain));
  const ListenOptions options;
  const ServerLimits& limits = options.limits;
  EXPECT_EQ(plain.max_msg_mb_size, options.max_msg_mb_size);
  EXPECT_EQ(plain.max_connections, limits.max_connections);
  EXPECT_EQ(plain.max_streams_per_connection, limits.max_streams_per_connection);
  EXPECT_EQ(plain.max_pipelined_requests, limits.max_pipelined_requests);
  EXPECT_EQ(plain.max_header_bytes, limits.max_header_bytes);
  EXPECT_EQ(plain.request_timeout_seconds, limits.request_timeout_seconds);
  EXPECT_EQ(plain.reply_timeout_seconds, limits.reply_timeout_seconds);
  EXPECT_LT(plain.idle_timeout_seconds, 0);
  EXPECT_EQ(plain.max_resets_per_second, limits.max_resets_per_second);
  EXPECT_EQ(plain.max_control_frames_per_second, limits.max_control_frames_per_second);
  EXPECT_EQ(plain.connection_bytes_share, limits.connection_bytes_share);
  MsServingServableConfig config;
  ms_serving_servable_config_init(&config, sizeof(config));
  EXPECT_EQ(config.dec_mode, ServableStartConfig().dec_mode);
}

}  // namespace
}  // namespace mindspore_serving
