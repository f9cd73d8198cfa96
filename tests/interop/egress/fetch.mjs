// Fetches a URL and prints status and body; `cause` says why where there is none.
const [url] = process.argv.slice(2);
try {
  const response = await fetch(url);
  console.log(response.status, (await response.text()).trim());
} catch (error) {
  console.log("failed", error.cause?.message ?? error.message);
  process.exitCode = 1;
}
