# The clients in Java.

.PHONY: java

# Maven fetches what is missing, and nothing once it has it all. MVN takes more
# arguments, as in `make java MVN=-Dtest=TypesTest`.
java:
	@if ! { command -v javac && command -v mvn; } >/dev/null; then \
		echo "SKIPPED: the Java clients need a JDK of 17 or later and Maven:" \
			"install default-jdk-headless and maven" >&2; \
		test -z "$$CI"; exit; \
	fi; \
	cargo build --locked $(FEATURES) && \
	JAMMI_BIN=$(abspath $(TARGET_DIR))/debug/jammi \
	MAVEN_OPTS="$$MAVEN_OPTS -Dorg.slf4j.simpleLogger.log.org.apache.maven.plugin.surefire=info" \
	mvn --batch-mode --quiet --file tests/clients/java/pom.xml \
		-Doutput.directory=$(abspath $(TARGET_DIR))/java $(MVN) test
