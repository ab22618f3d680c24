// Shared code of the JavaScript cases: counting checks.

export class Checks {
  constructor(name) {
    this.name = name;
    this.passed = 0;
    this.failed = 0;
  }

  that(what, condition, detail = '') {
    if (condition) {
      this.passed += 1;
    } else {
      this.failed += 1;
      console.log(`FAIL ${this.name}: ${what}${detail === '' ? '' : ': '}${detail}`);
    }
  }

  equal(what, actual, expected) {
    const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
    this.that(what, left === right, `got ${left}, expected ${right}`);
  }

  // Runs a function; an exception or more than 30 seconds is a failure.
  async run(check) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('timed out')), 30_000);
    });
    try {
      await Promise.race([check(), late]);
    } catch (error) {
      this.that(check.name, false, error);
    } finally {
      clearTimeout(timer);
    }
  }

  finish() {
    console.log(`${this.name}: ${this.passed} passed, ${this.failed} failed`);
    process.exit(this.failed ? 1 : 0);
  }
}
