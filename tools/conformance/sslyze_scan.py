"""What sslyze finds: versions, suites, and weaknesses that have names."""

import os

from sslyze import ScanCommandAttemptStatusEnum, Scanner, ServerNetworkLocation, ServerScanRequest

from checks import Checks

checks = Checks("sslyze")


def main():
    host, port = os.environ["FANTAIL_TLS_HTTP"].split(":")
    scanner = Scanner()
    scanner.queue_scans([ServerScanRequest(ServerNetworkLocation("localhost", int(port), ip_address=host))])
    for result in scanner.get_results():
        found = result.scan_result
        checks.that("the server can be scanned", found is not None)
        for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
            suites = getattr(found, f"{old}_cipher_suites").result.accepted_cipher_suites
            checks.equal(f"{old} is not spoken", [suite.cipher_suite.name for suite in suites], [])
        for new, count in (("tls_1_2", 3), ("tls_1_3", 3)):
            suites = getattr(found, f"{new}_cipher_suites").result.accepted_cipher_suites
            names = [suite.cipher_suite.name for suite in suites]
            checks.equal(f"suites of {new}", len(names), count)
            checks.that("with authentication alone", all("GCM" in name or "POLY1305" in name for name in names), names)
        checks.that("no compression", not found.tls_compression.result.supports_compression)
        checks.that("no Heartbleed", not found.heartbleed.result.is_vulnerable_to_heartbleed)
        checks.that("no CCS injection", not found.openssl_ccs_injection.result.is_vulnerable_to_ccs_injection)
        checks.that("no early data", not found.tls_1_3_early_data.result.supports_early_data)
        renegotiation = found.session_renegotiation.result
        checks.that("no renegotiation", not renegotiation.is_vulnerable_to_client_renegotiation_dos)
        checks.that("it would be secure", renegotiation.supports_secure_renegotiation)
        checks.that("fallbacks are noticed", found.tls_fallback_scsv.result.supports_fallback_scsv)
        resumption = found.session_resumption
        checks.equal("resumption", resumption.status, ScanCommandAttemptStatusEnum.COMPLETED)
        checks.equal("by tickets", resumption.result.tls_ticket_resumption_result.name, "FULLY_SUPPORTED")
    checks.finish()


if __name__ == "__main__":
    main()
