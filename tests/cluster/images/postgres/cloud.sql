CREATE ROLE yourcode LOGIN PASSWORD 'yourcode';
CREATE DATABASE yourcode OWNER yourcode;
\connect yourcode yourcode
CREATE TABLE greetings (text text NOT NULL);
INSERT INTO greetings VALUES ('hello from the cloud'), ('good morning from the cloud');
