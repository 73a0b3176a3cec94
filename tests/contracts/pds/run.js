// Runs a personal data server and its directory on two ports, both in memory or a new folder.
const { PlcServer, Database } = require("@did-plc/server");
const { PDS, envToCfg, envToSecrets } = require("@atproto/pds");
const { Secp256k1Keypair } = require("@atproto/crypto");
const fs = require("fs");
const os = require("os");
const path = require("path");

async function main(plcPort, port) {
  await PlcServer.create({ db: Database.mock(), port: plcPort }).start();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "pds-"));
  const key = await Secp256k1Keypair.create({ exportable: true });
  const env = {
    devMode: true,
    port,
    hostname: "localhost",
    dataDirectory: folder,
    blobstoreDiskLocation: path.join(folder, "blobs"),
    didPlcUrl: `http://localhost:${plcPort}`,
    inviteRequired: false,
    serviceHandleDomains: [".test"],
    bskyAppViewUrl: "https://appview.invalid",
    bskyAppViewDid: "did:example:invalid",
    recoveryDidKey: key.did(),
    jwtSecret: "of-the-tests-alone",
    adminPassword: "of-the-tests-alone",
    plcRotationKeyK256PrivateKeyHex: Buffer.from(await key.export()).toString("hex"),
    rateLimitsEnabled: true,
  };
  await (await PDS.create(envToCfg(env), envToSecrets(env))).start();
  console.log("ready");
}

main(Number(process.argv[2]), Number(process.argv[3])).catch((error) => {
  console.error(error);
  process.exit(1);
});
