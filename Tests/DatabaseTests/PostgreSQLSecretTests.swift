import Testing

@testable import Database

@Suite("Passwords in messages")
struct PostgreSQLSecretTests {
    @Test(
        "what libpq quotes of an address doesn't show its password",
        arguments: [
            ("postgresql://roost:hunter2@db/roost", #"password "hunter2" is wrong"#),
            ("postgresql://roost:sl/ash#secret@db/roost", #"invalid integer value "ash#secret" for "port""#),
            ("postgresql://db/roost?user=roost&password=hunter2", #"in "password=hunter2""#),
            ("host=db user=roost password=hunter2", #"in "password=hunter2""#),
        ])
    func hidden(url: String, message: String) {
        let shown = PostgreSQLSecret(url: url).hidden(in: message)
        for secret in ["hunter2", "secret", "ash"] { #expect(!shown.contains(secret)) }
        #expect(shown.contains("…"))
    }

    @Test("addresses without a password change nothing")
    func none() {
        for url in ["postgresql://roost@db/roost", "postgresql:///roost", "host=db"] {
            #expect(PostgreSQLSecret(url: url).hidden(in: "could not connect to db") == "could not connect to db")
        }
    }
}
