// The same over TLS, with certificates that fit and with such that do not.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "rank_server_fixture.h"
#include "test_certificates.h"

namespace msserving {
namespace {

using testing::AgentThread;
using testing::FloatInfo;
using testing::Floats;
using testing::FunctionSession;
using testing::kPatienceNs;
using testing::RankServerTest;
using testing::Sessions;
using testing::TestCertificates;

class RankTlsTest : public RankServerTest {
 protected:
  RankTlsTest() {
    files_.Issue("server", -3600, 3600, "127.0.0.1");
    files_.Issue("client");
    files_.Issue("other", -3600, 3600, "10.9.8.7");
  }

  void Serve(const std::string& name, bool verify_client) {
    options_.tls = TlsOptions{files_.Pem(name), files_.Key(name), files_.Pem("ca"), verify_client, false, ""};
    StartServer(2);
  }

  WorkerAddress Client(bool with_certificate) const {
    TlsOptions tls;
    tls.custom_ca_file = files_.Pem("ca");
    if (with_certificate) {
      tls.certificate_file = files_.Pem("client");
      tls.private_key_file = files_.Key("client");
    }
    return {server_->address(), tls};
  }

  Status TryToConnect(const WorkerAddress& address) {
    launcher_ = std::make_unique<RankLauncher>(address);
    std::string configuration;
    return launcher_->Connect(kPatienceNs, &configuration);
  }

  static Sessions Doubling() {
    return {std::make_shared<FunctionSession>(
        std::vector<TensorInfo>{FloatInfo({-1})}, FloatInfo({-1}),
        [](std::span<const MsServingTensor> given, std::vector<float>* out, std::vector<int64_t>* dims) {
          for (const float value : Floats(given[0])) {
            out->push_back(2 * value);
          }
          dims->push_back(given[0].dims[0]);
          return Status::Ok();
        })};
  }

  TestCertificates files_;
};

TEST_F(RankTlsTest, RanksRunOverMutualTls) {
  Serve("server", true);
  ASSERT_TRUE(TryToConnect(Client(true)).ok());
  launcher_->Claim({0, 1}, "here", "");
  const std::string token = Next(launcher_.get()).token;
  std::vector<std::unique_ptr<AgentThread>> agents;
  for (uint32_t i = 0; i < 2; ++i) {
    RankAgentOptions options = AgentOptions(i, token, false);
    options.worker = Client(true);
    agents.push_back(std::make_unique<AgentThread>(options, Doubling()));
  }
  ExpectReady();
  std::shared_ptr<Session> session;
  ASSERT_TRUE(server_->MakeSession(0, &session).ok());
  for (const size_t size : {size_t{3}, size_t{1} << 20, size_t{5}}) {
    std::vector<float> result;
    const Status status = Run(session.get(), std::vector<float>(size, 4), {static_cast<int64_t>(size)}, &result);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(result, std::vector<float>(size, 8));
  }
  server_->Stop("done");
}

TEST_F(RankTlsTest, AServerOfAnotherNameIsNotTrusted) {
  Serve("other", false);
  const Status status = TryToConnect(Client(false));
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("the TLS handshake failed"), std::string::npos) << status.message();
}

TEST_F(RankTlsTest, AServerOfAnotherAuthorityIsNotTrusted) {
  Serve("server", false);
  const TestCertificates others;
  WorkerAddress address = Client(false);
  address.tls->custom_ca_file = others.Pem("ca");
  EXPECT_FALSE(TryToConnect(address).ok());
}

TEST_F(RankTlsTest, AClientWithoutItsCertificateIsRefused) {
  Serve("server", true);
  EXPECT_FALSE(TryToConnect(Client(false)).ok());
  EXPECT_TRUE(TryToConnect(Client(true)).ok());
}

TEST_F(RankTlsTest, AClientWithoutTlsIsRefused) {
  Serve("server", false);
  EXPECT_FALSE(TryToConnect(WorkerAddress{server_->address(), {}}).ok());
}

}  // namespace
}  // namespace msserving
